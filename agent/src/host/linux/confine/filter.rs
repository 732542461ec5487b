//! A filter of system calls, as the kernel takes it (seccomp(2), linux/filter.h). When it takes one in, the kernel goes through
//! it once for every call that there is; a chain of comparisons for each answer, as libraries make them, took a seventh of all
//! that a service's start took. So there is one filter with all answers, in which numbers are searched by halves.

use nix::libc;
use seccompiler::{BpfProgram, sock_filter};
use std::collections::BTreeMap;

// Of linux/audit.h.
#[cfg(target_arch = "x86_64")]
const MACHINE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const MACHINE: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const MACHINE: Option<u32> = None;

/// The calls of the ABI x32, which some kernels have besides, are from here on.
const X32: u32 = 0x4000_0000;

// Where things are in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// What is answered in place of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Allow,
    Error(i32),
    /// The process is ended.
    End,
}

impl Answer {
    fn value(self) -> u32 {
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Error(number) => libc::SECCOMP_RET_ERRNO | number.unsigned_abs(),
            Self::End => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }
}

/// What a rule looks at: the lower half of an argument.
#[derive(Debug, Clone)]
pub enum When {
    Always,
    /// One of these bits is set.
    Any(u8, u32),
    /// It is none of these.
    NoneOf(u8, Vec<u32>),
}

/// Why there is no filter.
pub type Unmade = &'static str;

/// The filter that answers these calls so where their rule holds, and allows all else.
///
/// # Errors
/// Where the calls of this kind of machine are not known, and for two rules of one call or one longer than a comparison
/// jumps.
pub fn filter(rules: impl IntoIterator<Item = (i64, (When, Answer))>) -> Result<BpfProgram, Unmade> {
    let machine = MACHINE.ok_or("the system calls of this kind of machine are not known")?;
    let mut sorted = BTreeMap::new();
    for (call, rule) in rules {
        let call = u32::try_from(call).map_err(|_| "a rule is of no system call")?;
        // Either could be the stricter one.
        if sorted.insert(call, rule).is_some() {
            return Err("there are two rules of one system call");
        }
    }
    let mut program = vec![load(ARCHITECTURE), jump(libc::BPF_JEQ, machine, 1, 0), answer(Answer::End), load(NUMBER)];
    if cfg!(target_arch = "x86_64") {
        // As a kernel that does not have it answers.
        program.extend([jump(libc::BPF_JGE, X32, 0, 1), answer(Answer::Error(libc::ENOSYS))]);
    }
    let rules: Option<Vec<_>> = sorted.iter().map(|(call, rule)| Some((*call, body(rule)?))).collect();
    program.extend(rules.and_then(|rules| search(&rules)).ok_or("a rule is longer than a comparison jumps")?);
    Ok(program)
}

/// Goes on with the rule of the call, whose number is at hand.
fn search(rules: &[(u32, BpfProgram)]) -> Option<BpfProgram> {
    Some(match rules {
        [] => vec![answer(Answer::Allow)],
        [(call, body)] => {
            let past = u8::try_from(body.len()).ok()?;
            let mut program = vec![jump(libc::BPF_JEQ, *call, 0, past)];
            program.extend(body.iter().cloned());
            program.push(answer(Answer::Allow));
            program
        }
        _ => {
            let (lower, upper) = rules.split_at(rules.len() / 2);
            let (first, lower, upper) = (upper[0].0, search(lower)?, search(upper)?);
            // A comparison alone does not jump far enough.
            let far = sock_filter { k: lower.len() as u32, ..of(libc::BPF_JMP | libc::BPF_JA) };
            let mut program = vec![jump(libc::BPF_JGE, first, 0, 1), far];
            program.extend(lower);
            program.extend(upper);
            program
        }
    })
}

/// Ends with an answer in every case.
fn body((when, then): &(When, Answer)) -> Option<BpfProgram> {
    Some(match when {
        When::Always => vec![answer(*then)],
        When::Any(argument, bits) => {
            vec![lower_half(*argument), jump(libc::BPF_JSET, *bits, 0, 1), answer(*then), answer(Answer::Allow)]
        }
        When::NoneOf(argument, values) => {
            let mut program = vec![lower_half(*argument)];
            for (at, value) in values.iter().enumerate() {
                program.push(jump(libc::BPF_JEQ, *value, u8::try_from(values.len() - at).ok()?, 0));
            }
            program.extend([answer(*then), answer(Answer::Allow)]);
            program
        }
    })
}

fn of(code: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k: 0 }
}

fn load(at: u32) -> sock_filter {
    sock_filter { k: at, ..of(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) }
}

fn lower_half(argument: u8) -> sock_filter {
    let half = if cfg!(target_endian = "big") { 4 } else { 0 };
    load(ARGUMENTS + 8 * u32::from(argument) + half)
}

/// Past so many instructions if it holds, and if it does not.
fn jump(how: u32, with: u32, holds: u8, else_: u8) -> sock_filter {
    sock_filter { jt: holds, jf: else_, k: with, ..of(libc::BPF_JMP | how | libc::BPF_K) }
}

fn answer(with: Answer) -> sock_filter {
    sock_filter { k: with.value(), ..of(libc::BPF_RET | libc::BPF_K) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel goes through it.
    fn run(program: &[sock_filter], data: &[u32; 16]) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let now = &program[at];
            at += 1;
            let holds = match u32::from(now.code) {
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    value = data[now.k as usize / 4];
                    continue;
                }
                code if code == libc::BPF_RET | libc::BPF_K => return now.k,
                code if code == libc::BPF_JMP | libc::BPF_JA => {
                    at += now.k as usize;
                    continue;
                }
                code if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => value == now.k,
                code if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => value >= now.k,
                code if code == libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K => value & now.k != 0,
                code => panic!("no instruction of these filters: {code}"),
            };
            at += usize::from(if holds { now.jt } else { now.jf });
        }
    }

    fn call(machine: u32, number: u32, arguments: [u32; 6]) -> [u32; 16] {
        let mut data = [0; 16];
        (data[0], data[1]) = (number, machine);
        arguments.iter().enumerate().for_each(|(n, argument)| data[4 + 2 * n] = *argument);
        data
    }

    #[test]
    fn every_call_is_answered_as_its_rule_says_and_all_others_are_allowed() {
        let machine = MACHINE.unwrap();
        for count in [0, 1, 2, 3, 7, 200] {
            let rules: BTreeMap<u32, (When, Answer)> = (0..count)
                .map(|n| {
                    let when = match n % 3 {
                        0 => When::Always,
                        1 => When::Any(1, 0b110),
                        _ => When::NoneOf(2, vec![1, 4, 9]),
                    };
                    (n * 2 + 1, (when, Answer::Error(n as i32 + 1)))
                })
                .collect();
            let program = filter(rules.iter().map(|(call, rule)| (i64::from(*call), rule.clone()))).unwrap();
            for number in 0..count * 2 + 3 {
                for argument in 0..11 {
                    let expected = match rules.get(&number) {
                        Some((When::Any(..), then)) if argument & 0b110 != 0 => *then,
                        Some((When::NoneOf(..), then)) if ![1, 4, 9].contains(&argument) => *then,
                        Some((When::Always, then)) => *then,
                        _ => Answer::Allow,
                    };
                    let data = call(machine, number, [0, argument, argument, 0, 0, 0]);
                    assert_eq!(run(&program, &data), expected.value(), "{number} of {count}, with {argument}");
                }
            }
        }
    }

    #[test]
    fn two_rules_of_one_call_and_one_that_is_too_long_are_refused_each_with_its_reason() {
        let always = |call| (call, (When::Always, Answer::End));
        assert!(filter([always(1), always(2)]).is_ok());
        assert!(filter([always(1), always(2), always(1)]).unwrap_err().contains("two rules"));
        assert!(filter([(1, (When::NoneOf(0, (0..300).collect()), Answer::End))]).unwrap_err().contains("longer"));
        assert!(filter([always(-1)]).unwrap_err().contains("no system call"));
    }

    #[test]
    fn calls_of_another_machine_end_the_process_and_those_of_x32_are_not_there() {
        let program = filter([]).unwrap();
        let i386 = 0x4000_0003;
        assert_eq!(run(&program, &call(i386, 1, [0; 6])), Answer::End.value());
        let x32 = run(&program, &call(MACHINE.unwrap(), X32 + 1, [0; 6]));
        let is_x86 = cfg!(target_arch = "x86_64");
        assert_eq!(x32, if is_x86 { Answer::Error(libc::ENOSYS) } else { Answer::Allow }.value());
    }
}
