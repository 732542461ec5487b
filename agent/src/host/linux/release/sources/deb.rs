//! Debian packages, unpacked and not installed: no script of a package runs.
//!
//! By name they are resolved, fetched and verified by apt in a folder of its own (see `plat-source`), checked again here
//! against the checksum in its indexes, and unpacked by dpkg-deb. Where the release has a lock for this kind of machine,
//! they are files by their digests like any other, and neither tool is needed.

mod locked;

pub use locked::{lay_locked, lock_of};

use super::fetch::checksum;
use super::tree::{Links, Tree};
use crate::host::linux::disk::io_problem;
use crate::host::linux::release::build::{Ingredient, failed, program, run_program};
use crate::host::linux::shim::tree::Exit;
use crate::host::linux::task::{self, Line};
use plat_model::Problem;
use plat_model::problem::codes;
use plat_source::{Apt, Package, Ran, Tools};
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Longest run of one tool, in seconds.
const TOOL_SECONDS: u32 = 3600;

/// The package tools' own folder.
struct Folder<'a> {
    path: &'a Path,
    line: &'a Line,
}

impl Tools for Folder<'_> {
    fn run(&self, command: Vec<String>, environment: BTreeMap<String, String>) -> Result<Ran, Problem> {
        let words = command.iter().take(2).map(|word| word.rsplit('/').next().unwrap_or(word).to_owned());
        let what = words.collect::<Vec<_>>();
        let ran = self.run_here(command, environment)?;
        let failure = (ran.exit != Exit::Code(0)).then(|| fetch_failed(&format!("{} failed", what.join(" ")), &ran));
        Ok(Ran { failure })
    }

    fn tell(&self, doing: &str) -> Result<(), Problem> {
        self.line.progress(format!("> {doing}"))
    }
}

pub fn lay(names: &[String], folder: &Path, into: &Path, line: &Line) -> Result<Vec<Ingredient>, Problem> {
    let wrong = |e: io::Error| io_problem(codes::SOURCE_FETCH, format!("cannot use {}", folder.display()), &e);
    // Two builds share the folder; the second waits.
    line.progress("> waiting for the package tools")?;
    let lock = File::create(folder.join("lock")).map_err(wrong)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|e| wrong(e.into()))?;
    let here = Folder { path: folder, line };
    let apt = Apt { folder, tools: &here };
    let (packages, ()) = apt.packages(names, |packages| here.fetch(&apt, names, packages))?;
    here.unpack(&packages, into)
}

impl Folder<'_> {
    fn run_here(&self, command: Vec<String>, environment: BTreeMap<String, String>) -> Result<task::Ran, Problem> {
        let program = program(command, environment, self.path);
        run_program(program, &self.path.join("log"), TOOL_SECONDS, self.line)
    }

    fn fetch(&self, apt: &Apt<'_>, names: &[String], packages: &[Package]) -> Result<(), Problem> {
        let missing: Vec<&Package> = packages.iter().filter(|p| !self.path(p).exists()).collect();
        for (n, package) in missing.iter().enumerate() {
            let name = &package.name;
            self.line.progress(format!("> fetching {name} ({} of {})", n + 1, missing.len()))?;
            // apt's own fetcher: its proxies, credentials and transports, its check of size and checksum.
            let to = format!("{}/cache/archives/partial/{}", self.path.display(), package.file);
            let arguments = ["-qq", "download-file", package.url.as_str(), &to, &format!("SHA256:{}", package.sha256)];
            let mut command = vec!["/usr/lib/apt/apt-helper".to_owned()];
            command.extend(arguments.iter().map(|a| (*a).to_owned()));
            let ran = self.run_here(command, apt.environment())?;
            if ran.exit != Exit::Code(0) {
                return Err(fetch_failed(&format!("cannot fetch {name} for {}", names.join(" ")), &ran));
            }
            fs::rename(&to, self.path(package))
                .map_err(|e| io_problem(codes::SOURCE_FETCH, format!("cannot keep {}", package.file), &e))?;
        }
        Ok(())
    }

    fn path(&self, package: &Package) -> PathBuf {
        self.path.join("cache/archives").join(&package.file)
    }

    fn unpack(&self, packages: &[Package], into: &Path) -> Result<Vec<Ingredient>, Problem> {
        let wrong = |e: &io::Error| cannot_unpack(into, e);
        merge_usr(into).map_err(|e| wrong(&e))?;
        let mut ingredients = Vec::new();
        for (n, package) in packages.iter().enumerate() {
            let path = self.path(package);
            let Package { name, version, .. } = package.clone();
            self.line.progress(format!("> unpacking {name} ({} of {})", n + 1, packages.len()))?;
            let found = File::open(&path).and_then(|mut file| checksum(&mut file)).map_err(|e| wrong(&e))?;
            if found != package.sha256 {
                let _ = fs::remove_file(&path);
                return Err(Problem::new(
                    codes::SOURCE_CHECKSUM,
                    format!("{} is not what the package index says", package.file),
                )
                .because(format!("its SHA-256 is {found}, expected {}", package.sha256)));
            }
            let command =
                ["/usr/bin/dpkg-deb", "-x", &path.display().to_string(), &into.display().to_string()].map(String::from);
            let environment = BTreeMap::from([("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())]);
            let ran = self.run_here(command.to_vec(), environment)?;
            if ran.exit != Exit::Code(0) {
                return Err(failed(&format!("cannot unpack {name}"), &ran, TOOL_SECONDS));
            }
            ingredients.push(Ingredient { name, version, sha256: found });
        }
        Tree::open(into, "")?.root_links(Links::ToWhatIsThere).map_err(|e| wrong(&e))?;
        Ok(ingredients)
    }
}

fn cannot_unpack(into: &Path, e: &io::Error) -> Problem {
    io_problem(codes::BUILD_FAILED, format!("cannot unpack packages into {}", into.display()), e)
}

/// As on a Debian system today: what a package puts into /bin is in /usr/bin.
fn merge_usr(into: &Path) -> io::Result<()> {
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        fs::create_dir_all(into.join("usr").join(name))?;
        match std::os::unix::fs::symlink(format!("usr/{name}"), into.join(name)) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
    }
    Ok(())
}

fn fetch_failed(what: &str, ran: &task::Ran) -> Problem {
    let mut problem = failed(what, ran, TOOL_SECONDS);
    if problem.code != codes::DISK_FULL {
        problem.code = codes::SOURCE_FETCH;
    }
    problem.fix("check that this node reaches its package sources (`apt-get update`)")
}
