//! A machine with so many processes (`TasksMax=`, `kernel.pid_max`) that node-format gets no thread: of its own, for whoever fills
//! the machine decides when.

use super::machine::{Machine, ip, on_a_machine};
use super::namespaces::inside;
use std::process::{Command, Output, Stdio};

mod calls {
    #![expect(unsafe_code, reason = "a filter of system calls is set by a foreign call alone")]

    use nix::libc;
    use nix::libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W};

    /// Where `struct seccomp_data` has the number of the call, and the lower half of its first argument.
    const NUMBER: u32 = 0;
    const FLAGS: u32 = if cfg!(target_endian = "big") { 20 } else { 16 };

    const fn step(code: u32, k: u32, then: u8, otherwise: u8) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt: then, jf: otherwise, k }
    }

    const fn load(at: u32) -> libc::sock_filter {
        step(BPF_LD | BPF_W | BPF_ABS, at, 0, 0)
    }

    const fn answer(errno: i32) -> libc::sock_filter {
        step(BPF_RET | BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0)
    }

    /// From now on the calling thread, and each process that it starts, gets no threads. Processes it gets.
    pub(super) fn refuse_threads() {
        let mut steps = [
            load(NUMBER),
            // Its flags are in memory, out of sight: whoever is told that there is no such call uses the older one.
            step(BPF_JMP | BPF_JEQ | BPF_K, libc::SYS_clone3 as u32, 0, 1),
            answer(libc::ENOSYS),
            step(BPF_JMP | BPF_JEQ | BPF_K, libc::SYS_clone as u32, 0, 3),
            load(FLAGS),
            step(BPF_JMP | BPF_JSET | BPF_K, libc::CLONE_THREAD as u32, 0, 1),
            answer(libc::EAGAIN),
            step(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
        ];
        let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
        // SAFETY: the program, and the steps that it points to, live across the call, which copies them.
        let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
        nix::errno::Errno::result(set).expect("root may set a filter");
    }
}

/// Runs node-format where it gets no thread; its exit code, and what it said.
fn run(machine: &Machine, verb: &[&str]) -> (i32, String) {
    let mut command = machine.command(verb);
    let thread = std::thread::spawn(move || {
        calls::refuse_threads();
        command.output().unwrap()
    });
    let Output { status, stdout, stderr } = thread.join().unwrap();
    let text = String::from_utf8([stdout, stderr].concat()).unwrap();
    (status.code().unwrap(), text)
}

fn shown(machine: &Machine) -> [String; 2] {
    ["part0", "part1"].map(|name| {
        inside(machine, name, || {
            let shown = Command::new("ip").args(["address", "show", "dev", "eth0"]).output().unwrap();
            let text = String::from_utf8(shown.stdout).unwrap();
            text.lines().filter(|line| line.contains("inet") && !line.contains("fe80:")).collect()
        })
    })
}

#[test]
fn a_machine_is_formatted_and_undone_without_threads() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(2, "mode = \"bridge\"\nnamespaces = true\nguard = false\n", "");
        let (code, said) = run(machine, &["apply"]);
        assert_eq!(code, 0, "{said}");
        let (code, said) = run(machine, &["verify"]);
        assert_eq!(code, 0, "{said}");
        // What must come back into a namespace: what a run takes from there that fails at its end.
        inside(machine, "part1", || ip("address add 10.98.0.1/24 dev eth0"));
        let before = shown(machine);
        assert!(before[1].contains("10.98.0.1/24"), "{before:?}");
        machine.configure_with(
            2,
            "mode = \"bridge\"\nnamespaces = true\nguard = false\n",
            "[limits]\nmemory_mib = 512\n",
        );
        let resource = machine.path("srv/plat/resources/part1/resource.json");
        let set = |flag| assert!(Command::new("chattr").arg(flag).arg(&resource).status().unwrap().success());
        set("+i");
        let (code, said) = run(machine, &["apply"]);
        set("-i");
        assert!(code == 1 && said.contains("the machine is as it was before the run"), "{code} {said}");
        assert_eq!(shown(machine), before);
        let (code, said) = run(machine, &["apply"]);
        assert_eq!(code, 0, "{said}");
        machine.must(&["verify"]);
    });
}

#[test]
fn nothing_is_removed_where_it_cannot_be_told_what_others_have_mounted() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        let before = machine.everything();
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", "echo there; read end"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut other = unshare.spawn().unwrap();
        let mut there = [0; 6];
        std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut there).unwrap();
        let (code, said) = run(machine, &["reset"]);
        assert!(
            code == 1 && said.contains("P0504") && said.contains("have mounted cannot be looked at"),
            "{code} {said}"
        );
        assert_eq!(machine.everything(), before);
        drop(other.stdin.take());
        other.wait().unwrap();
        machine.must(&["reset"]);
    });
}
