//! Shutting a program in: what of the machine it sees, may write to and may ask of the kernel, as data; and the ordered
//! steps of a process of one thread on its way to being that program.
//!
//! The caller takes [`plan`], performs `as_started`, becomes the program's user, performs `as_user`, and executes the
//! program. Each step that this machine does not allow is told and left out, for the others hold without it: mounts and
//! namespaces, Landlock and system calls each keep most of the same things away. Nothing of it can be undone by the
//! program.

mod filter;
mod hidden;
mod mounts;
mod rights;
mod syscalls;

use mounts::Mounts;
pub use mounts::{PRIVATE, SHARED_MEMORY_BYTES, TEMPORARY, TMP_BYTES, find_folder, resolver, tmp_of};
use nix::sched::{CloneFlags, unshare};
use plat_model::Problem;
use plat_model::node::Account;
use plat_model::problem::codes;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
pub use syscalls::{FAMILIES, FORBIDDEN_SERVICES};

/// What a program has of the machine. It may read and execute what its user may, but for what is hidden; of processes it
/// sees its user's alone; what is in its `/dev/shm` is its own and goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Folders that it may write to, as far as its user may.
    pub writable: Vec<PathBuf>,
    /// Folders and files that it sees although they are beneath what is hidden, if they are there.
    pub readable: Vec<PathBuf>,
    /// Folders that are empty to it, unless what is writable or readable is beneath. One that is not there is none; one that
    /// is and cannot be hidden keeps the program from starting.
    pub hidden: Vec<PathBuf>,
    /// Files and folders that it sees, and does not write to, also where all beside them is nothing to it: in homes, `/run` and
    /// temporary folders. What is hidden stays so, and what its user could not come to.
    pub visible: Vec<PathBuf>,
    pub network: Network,
    pub modes: Modes,
    pub tmp: Tmp,
    pub company: Company,
}

/// What its `/tmp` and `/var/tmp` are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tmp {
    /// Its own, in memory, and gone with it: at most so many bytes.
    Memory(u64),
    /// The folder of this name in the first that is writable, as long as its owner leaves a folder there; else its own.
    Within(String),
}

/// Whom it has to do with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Company {
    /// Nobody: it signals and traces itself alone, and Landlock keeps what mounts keep once more.
    None,
    /// Other programs of its user in the same folders, which see and signal each other.
    OfItsUser,
}

impl Bounds {
    /// Of a program in company that needs nothing.
    pub fn empty() -> Self {
        Self {
            writable: Vec::new(),
            readable: Vec::new(),
            hidden: Vec::new(),
            visible: Vec::new(),
            network: Network::Same,
            modes: Modes::Plain,
            tmp: Tmp::Memory(1 << 20),
            company: Company::OfItsUser,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// A loopback of its own, and nothing else.
    None,
    /// That of who starts it.
    Same,
}

/// Which modes of files it may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Modes {
    /// None that gives rights.
    Plain,
    /// All that its user may: somebody looks through what it made.
    Any,
}

/// One thing to do. What it acts on is in the [`Bounds`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Where what is hidden is, while nothing covers the way.
    Look,
    /// Namespaces of its own for mounts, System V objects and message queues; who is not root makes one of users for it.
    OwnMounts,
    /// An empty network namespace with a loopback.
    OwnNetwork,
    /// All of the machine read-only but what is writable, private temporary folders, what is hidden emptied, and processes
    /// of other users not to be seen.
    Lay,
    /// No program gives it more rights than it has.
    NoNewPrivileges,
    /// Landlock: the same as mounts by another way, and signals and ptrace to itself alone. Who has company has it only
    /// where there are no mounts: what Landlock bounds cannot look at each other.
    Rights,
    /// No system calls of who administers, of who traces others, no set-user-id files, and no sockets but those of the
    /// internet, of this machine's programs and of the kernel's own words about its network.
    Calls,
}

/// In the order in which they are to be done.
pub struct Steps {
    /// Before the process becomes the program's user.
    pub as_started: Vec<Step>,
    /// As that user.
    pub as_user: Vec<Step>,
}

pub fn plan(bounds: &Bounds) -> Steps {
    let own = (bounds.network == Network::None).then_some(Step::OwnNetwork);
    Steps {
        // The namespace of users, if there is to be one, comes with the first.
        as_started: [Some(Step::Look), Some(Step::OwnMounts), own, Some(Step::Lay)].into_iter().flatten().collect(),
        as_user: vec![Step::NoNewPrivileges, Step::Rights, Step::Calls],
    }
}

/// Finds out and makes ready what is the same for all, so that none of those that are forked afterwards has to: in a process of
/// one thread that waits for its children.
pub fn prepare() {
    if !nix::unistd::geteuid().is_root() {
        // Whoever needs it is told why it cannot be had.
        let _ = mounts::try_as_user();
    }
    syscalls::prepare();
}

/// Shuts this process in for good. What of it this machine does not keep, a line each.
///
/// # Errors
/// As [`Confining::perform`].
pub fn attempt(bounds: &Bounds) -> Result<Vec<String>, Problem> {
    let (steps, mut confining) = (plan(bounds), Confining::new(bounds, None));
    confining.perform(&steps.as_started)?;
    confining.perform(&steps.as_user)?;
    Ok(confining.missing)
}

/// A process on its way to being a program within bounds.
pub struct Confining<'a> {
    bounds: &'a Bounds,
    /// Where what is hidden is.
    hidden: Vec<PathBuf>,
    mounts: Mounts,
    has_own_network: bool,
    /// Who it will be; `None`: who it is.
    user: Option<&'a Account>,
    /// What it holds open, beneath which it may read.
    reads: Option<BorrowedFd<'a>>,
    /// What is not enforced, a line each.
    pub missing: Vec<String>,
}

impl<'a> Confining<'a> {
    pub fn new(bounds: &'a Bounds, user: Option<&'a Account>) -> Self {
        Self {
            bounds,
            user,
            hidden: Vec::new(),
            mounts: Mounts::default(),
            has_own_network: false,
            reads: None,
            missing: Vec::new(),
        }
    }

    /// A folder that is open already can be read, though it is hidden.
    pub fn reading(self, folder: BorrowedFd<'a>) -> Self {
        Self { reads: Some(folder), ..self }
    }

    pub fn is_alone(&self) -> bool {
        self.bounds.company == Company::None
    }

    /// Performs steps in their order.
    ///
    /// # Errors
    /// PRIVILEGE if a step was begun and could not be done: the program must not be started then.
    pub fn perform(&mut self, steps: &[Step]) -> Result<(), Problem> {
        steps.iter().try_for_each(|step| self.step(*step)).map_err(|(what, e)| {
            Problem::new(codes::PRIVILEGE, format!("cannot shut a program in: {what}"))
                .because(e)
                .fix("look whether this machine's kernel, or what it runs in, forbids it")
        })
    }

    fn step(&mut self, step: Step) -> Result<(), (&'static str, io::Error)> {
        match step {
            Step::Look => {
                let paths = self.bounds.hidden.iter().map(PathBuf::as_path);
                self.hidden = hidden::places(paths).map_err(|e| ("what is hidden", e))?;
            }
            Step::OwnMounts => match mounts::own() {
                Ok(()) => self.mounts.are_own = true,
                Err(e) => self.lacks("a read-only machine and private temporary folders", &e),
            },
            Step::OwnNetwork => match unshare(CloneFlags::CLONE_NEWNET) {
                Ok(()) => {
                    self.has_own_network = true;
                    if let Err(e) = mounts::loopback_up() {
                        self.lacks("a loopback of its own", &e);
                    }
                }
                Err(e) => self.lacks("a network namespace", &e.into()),
            },
            Step::Lay if self.mounts.are_own => {
                if let Some(why) =
                    self.mounts.lay(self.bounds, &self.hidden, self.user).map_err(|e| ("its mounts", e))?
                {
                    self.lacks("that processes of other users are not seen", &why);
                }
            }
            Step::Lay => {}
            Step::NoNewPrivileges => {
                nix::sys::prctl::set_no_new_privs().map_err(|e| ("no new privileges", e.into()))?;
            }
            Step::Rights if self.bounds.company == Company::OfItsUser && self.mounts.are_own => {}
            Step::Rights => {
                if let Some(why) = self.restrict().map_err(|e| ("Landlock", e))? {
                    self.lacks("all of Landlock", &io::Error::other(why));
                }
            }
            Step::Calls => {
                let sockets = match (self.bounds.network, self.has_own_network) {
                    (Network::None, false) => syscalls::Sockets::Local,
                    _ => syscalls::Sockets::Internet,
                };
                if let Err(e) = syscalls::forbid(sockets, self.bounds.modes) {
                    self.lacks("a filter of system calls", &e);
                }
            }
        }
        Ok(())
    }

    /// Where mounts have emptied what is hidden, all that is there may be read.
    fn restrict(&self) -> io::Result<Option<String>> {
        rights::restrict(self.bounds, if self.mounts.are_own { &[] } else { &self.hidden }, self.reads)
    }

    fn lacks(&mut self, what: &str, why: &io::Error) {
        // The kernel's word for too many namespaces is that of a full disk.
        let why = match why.raw_os_error().map(nix::errno::Errno::from_raw) {
            Some(nix::errno::Errno::ENOSPC) => "it allows no more namespaces".to_owned(),
            _ => why.to_string(),
        };
        self.missing.push(format!("{what} ({why})"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_come_before_rights_over_them_and_what_forbids_comes_last() {
        let bounds = |network| Bounds { network, ..Bounds::empty() };
        let none = plan(&bounds(Network::None));
        assert_eq!(none.as_started, [Step::Look, Step::OwnMounts, Step::OwnNetwork, Step::Lay]);
        assert_eq!(none.as_user, [Step::NoNewPrivileges, Step::Rights, Step::Calls]);
        let alone = bounds(Network::None);
        let mut confining = Confining::new(&alone, None);
        confining.lacks("namespaces", &nix::errno::Errno::ENOSPC.into());
        assert!(!confining.missing[0].contains("No space left"), "that would be told as a full disk");
        assert!(!plan(&bounds(Network::Same)).as_started.contains(&Step::OwnNetwork));
    }
}
