//! The few things that are asked of the kernel about its small programs (bpf(2)). Numbers and places are of linux/bpf.h.
#![expect(unsafe_code, reason = "there is one call for all of it, which is told where to read and to write")]

use super::program::{Instruction, Value};
use nix::libc;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const MAP_CREATE: i32 = 0;
const MAP_LOOKUP: i32 = 1;
const MAP_UPDATE: i32 = 2;
const MAP_DELETE: i32 = 3;
const MAP_NEXT_KEY: i32 = 4;
const PROGRAM_LOAD: i32 = 5;
const PROGRAM_ATTACH: i32 = 8;
const PROGRAM_DETACH: i32 = 9;
const PROGRAM_BY_NUMBER: i32 = 13;
const MAP_BY_NUMBER: i32 = 14;
const INFO: i32 = 15;
const PROGRAM_QUERY: i32 = 16;

const HASH: u32 = 1;
const NO_PREALLOC: u32 = 1;
const CGROUP_SKB: u32 = 8;
const ALLOW_MULTI: u32 = 2;

/// What the kernel tells of a program, as far as it is read here.
const INFO_SIZE: usize = 80;

/// Longest name of a map or a program, its end included.
const NAME_SIZE: usize = 16;

/// Which packets of a group's sockets a program sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Received = 0,
    Sent = 1,
}

/// The argument of a call: numbers and addresses at their places.
struct Argument([u64; 16]);

impl Argument {
    const fn new() -> Self {
        Self([0; 16])
    }

    fn bytes(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        for (n, byte) in bytes.iter().enumerate() {
            let (word, place) = ((at + n) / 8, (at + n) % 8);
            let mut raw = self.0[word].to_ne_bytes();
            raw[place] = *byte;
            self.0[word] = u64::from_ne_bytes(raw);
        }
        self
    }

    fn number(&mut self, at: usize, number: u32) -> &mut Self {
        self.bytes(at, &number.to_ne_bytes())
    }

    fn long(&mut self, at: usize, number: u64) -> &mut Self {
        self.bytes(at, &number.to_ne_bytes())
    }

    fn file(&mut self, at: usize, file: BorrowedFd<'_>) -> &mut Self {
        self.bytes(at, &file.as_raw_fd().to_ne_bytes())
    }

    fn name(&mut self, at: usize, name: &str) -> &mut Self {
        let name = name.as_bytes();
        self.bytes(at, &name[..name.len().min(NAME_SIZE - 1)])
    }

    fn read(&self, at: usize) -> u32 {
        let raw = self.0[at / 8].to_ne_bytes();
        let mut number = [0; 4];
        number.copy_from_slice(&raw[at % 8..at % 8 + 4]);
        u32::from_ne_bytes(number)
    }

    /// # Safety
    /// Each address in it must be of memory as large as `command` reads or writes there.
    unsafe fn call(&mut self, command: i32) -> io::Result<i32> {
        // SAFETY: the argument is as long as it is said to be, which the kernel takes for the rest being zero; the caller
        // answers for the addresses.
        let done = unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), size_of_val(&self.0)) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done as i32) }
    }

    /// # Safety
    /// As of [`Argument::call`], with a command that opens something.
    unsafe fn open(&mut self, command: i32) -> io::Result<OwnedFd> {
        // SAFETY: the kernel has just made this number for this process, and nobody else has it.
        unsafe { Ok(OwnedFd::from_raw_fd(self.call(command)?)) }
    }
}

/// Makes a map from 64 bits to a [`Value`].
pub fn make_map(name: &str, entries: u32) -> io::Result<OwnedFd> {
    let mut argument = Argument::new();
    argument.number(0, HASH).number(4, 8).number(8, size_of::<Value>() as u32).number(12, entries);
    argument.number(16, NO_PREALLOC).name(28, name);
    // SAFETY: there is no address in it.
    unsafe { argument.open(MAP_CREATE) }
}

/// What the map has for a key.
pub fn look_up(map: BorrowedFd<'_>, key: u64) -> io::Result<Option<Value>> {
    let mut value: Value = [0; 2];
    let mut argument = Argument::new();
    argument.file(0, map).long(8, (&raw const key).expose_provenance() as u64);
    argument.long(16, (&raw mut value).expose_provenance() as u64);
    // SAFETY: keys and values of this map have the size of these two, both of which outlive the call.
    match unsafe { argument.call(MAP_LOOKUP) } {
        Ok(_) => Ok(Some(value)),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Has a value for a key, in place of one that is there.
pub fn put_in(map: BorrowedFd<'_>, key: u64, value: Value) -> io::Result<()> {
    let mut argument = Argument::new();
    argument.file(0, map).long(8, (&raw const key).expose_provenance() as u64);
    argument.long(16, (&raw const value).expose_provenance() as u64);
    // SAFETY: as above.
    unsafe { argument.call(MAP_UPDATE) }.map(drop)
}

/// Takes a key out, if it is in.
pub fn take_out(map: BorrowedFd<'_>, key: u64) {
    let mut argument = Argument::new();
    argument.file(0, map).long(8, (&raw const key).expose_provenance() as u64);
    // SAFETY: keys of this map have the size of this one, which outlives the call.
    let _was_not_in = unsafe { argument.call(MAP_DELETE) };
}

/// All keys.
pub fn keys(map: BorrowedFd<'_>) -> Vec<u64> {
    let (mut all, mut before) = (Vec::new(), None::<u64>);
    loop {
        let mut next = 0_u64;
        let from = before.as_ref().map_or(0, |key| (&raw const *key).expose_provenance() as u64);
        let mut argument = Argument::new();
        argument.file(0, map).long(8, from).long(16, (&raw mut next).expose_provenance() as u64);
        // SAFETY: as above; no address of a key means the first.
        if unsafe { argument.call(MAP_NEXT_KEY) }.is_err() {
            return all;
        }
        all.push(next);
        before = Some(next);
    }
}

/// Has the kernel check and take a program for one direction.
pub fn load(name: &str, direction: Direction, program: &[Instruction]) -> io::Result<OwnedFd> {
    // None that the kernel would open functions to that are for programs under the GPL alone.
    let license: &CStr = c"Apache-2.0";
    let mut argument = Argument::new();
    argument.number(0, CGROUP_SKB).number(4, program.len() as u32);
    argument.long(8, program.as_ptr().expose_provenance() as u64);
    argument.long(16, license.as_ptr().expose_provenance() as u64);
    argument.name(48, name).number(68, direction as u32);
    // SAFETY: the program has as many instructions as is said, the license ends with a zero; both outlive the call.
    unsafe { argument.open(PROGRAM_LOAD) }
}

/// Has a group's sockets, and those of all groups below it, pass by a program, beside what else they pass by.
pub fn attach(group: BorrowedFd<'_>, direction: Direction, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut argument = Argument::new();
    argument.file(0, group).file(4, program).number(8, direction as u32).number(12, ALLOW_MULTI);
    // SAFETY: there is no address in it.
    unsafe { argument.call(PROGRAM_ATTACH) }.map(drop)
}

/// Undoes [`attach`].
pub fn detach(group: BorrowedFd<'_>, direction: Direction, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut argument = Argument::new();
    argument.file(0, group).file(4, program).number(8, direction as u32);
    // SAFETY: there is no address in it.
    unsafe { argument.call(PROGRAM_DETACH) }.map(drop)
}

/// A program that a group has.
pub struct Attached {
    pub program: OwnedFd,
    pub name: String,
    /// The number of its only map.
    pub map: Option<u32>,
}

/// The programs that are attached to this very group.
pub fn attached(group: BorrowedFd<'_>, direction: Direction) -> io::Result<Vec<Attached>> {
    // The kernel takes no more for one group.
    let mut numbers = [0_u32; 64];
    let mut argument = Argument::new();
    argument.file(0, group).number(4, direction as u32);
    argument.long(16, numbers.as_mut_ptr().expose_provenance() as u64).number(24, numbers.len() as u32);
    // SAFETY: there is room for as many numbers as is said, until after the call.
    unsafe { argument.call(PROGRAM_QUERY) }?;
    let found = numbers.iter().take(argument.read(24) as usize);
    // One that goes in between is none.
    Ok(found.filter_map(|number| describe(*number).ok()).collect())
}

fn describe(number: u32) -> io::Result<Attached> {
    let program = by_number(PROGRAM_BY_NUMBER, number)?;
    let mut map = 0_u32;
    let mut info = Argument::new();
    info.number(52, 1).long(56, (&raw mut map).expose_provenance() as u64);
    let mut argument = Argument::new();
    argument.file(0, std::os::fd::AsFd::as_fd(&program)).number(4, INFO_SIZE as u32);
    argument.long(8, info.0.as_mut_ptr().expose_provenance() as u64);
    // SAFETY: what is told fits into `info`, and it has room for one map's number; both outlive the call.
    unsafe { argument.call(INFO) }?;
    let name: Vec<u8> =
        info.0[8..10].iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0).collect();
    let map = (info.read(52) == 1).then_some(map);
    Ok(Attached { program, name: String::from_utf8_lossy(&name).into_owned(), map })
}

/// A map by its number.
pub fn map(number: u32) -> io::Result<OwnedFd> {
    by_number(MAP_BY_NUMBER, number)
}

fn by_number(command: i32, number: u32) -> io::Result<OwnedFd> {
    let mut argument = Argument::new();
    argument.number(0, number);
    // SAFETY: there is no address in it.
    unsafe { argument.open(command) }
}
