//! Debian packages: resolved, fetched and verified by apt itself in a folder of its own, unpacked by dpkg-deb. Nothing
//! is installed, and no script of a package runs.
//!
//! What counts as there already is the host's essential and required packages and what they need, so that a release
//! does not depend on what else somebody installed on this machine. apt checks its indexes' signatures with the host's
//! keys; each package is checked again here against the checksum in those indexes.

mod base;

use super::fetch::checksum;
use super::tree::{Links, Tree};
use crate::host::linux::disk::io_problem;
use crate::host::linux::release::build::{Ingredient, failed, program, run_program};
use crate::host::linux::shim::tree::Exit;
use crate::host::linux::task::{Line, Ran};
use plat_model::Problem;
use plat_model::problem::codes;
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Indexes older than this are fetched again.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// Longest run of one tool, in seconds.
const TOOL_SECONDS: u32 = 3600;

/// One package to fetch.
struct Package {
    url: String,
    file: String,
    sha256: String,
}

struct Apt<'a> {
    folder: &'a Path,
    line: &'a Line,
}

pub fn lay(names: &[String], folder: &Path, into: &Path, line: &Line) -> Result<Vec<Ingredient>, Problem> {
    for name in names {
        let legal =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.:=~".contains(c) || c.is_ascii_uppercase();
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(legal) {
            return Err(Problem::new(
                codes::BAD_VALUE,
                format!("`{}` is not a package name", plat_model::id::shorten(name)),
            ));
        }
    }
    let apt = Apt { folder, line };
    let wrong = |e: io::Error| io_problem(codes::SOURCE_FETCH, format!("cannot use {}", folder.display()), &e);
    // Two builds share the folder; the second waits.
    line.progress("> waiting for the package tools")?;
    let lock = File::create(folder.join("lock")).map_err(wrong)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|e| wrong(e.into()))?;
    apt.prepare()?;
    let fresh = apt.refresh_if_stale()?;
    let packages = match apt.resolve(names).and_then(|packages| apt.fetch(names, &packages).map(|()| packages)) {
        Err(_) if !fresh => {
            apt.refresh()?;
            let packages = apt.resolve(names)?;
            apt.fetch(names, &packages)?;
            packages
        }
        other => other?,
    };
    apt.unpack(&packages, into)
}

impl Apt<'_> {
    fn prepare(&self) -> Result<(), Problem> {
        let wrong = |e: io::Error| io_problem(codes::SOURCE_FETCH, "cannot prepare a folder for apt", &e);
        for folder in ["state/lists/partial", "cache/archives/partial", "none", "parts"] {
            fs::create_dir_all(self.folder.join(folder)).map_err(wrong)?;
        }
        let status = fs::read_to_string("/var/lib/dpkg/status").map_err(|e| {
            io_problem(codes::SOURCE_FETCH, "this node has no Debian packages", &e)
                .fix("use sources of another kind on this node")
        })?;
        fs::write(self.folder.join("status"), base::base_system(&status)).map_err(wrong)?;
        // How this host reaches its archives, and nothing else of its settings: those may run programs.
        let dump = std::process::Command::new("/usr/bin/apt-config")
            .arg("dump")
            .env_clear()
            .output()
            .map_err(|e| io_problem(codes::SOURCE_FETCH, "cannot run apt-config", &e))?;
        let mut settings: String = String::from_utf8_lossy(&dump.stdout)
            .lines()
            .filter(|line| line.starts_with("Acquire::") && !line.starts_with("Acquire::Languages"))
            .map(|line| format!("{line}\n"))
            .collect();
        let folder = self.folder.display();
        settings.push_str(&format!(
            "Dir::State \"{folder}/state\";\nDir::State::status \"{folder}/status\";\nDir::Cache \"{folder}/cache\";\n\
             Dir::Etc::parts \"{folder}/parts\";\nDir::Etc::main \"/dev/null\";\nDir::Etc::preferencesparts \"{folder}/parts\";\n\
             Dir::Log \"{folder}/state\";\nAcquire::Languages \"none\";\nAcquire::Retries \"3\";\nAcquire::ForceHash \"SHA256\";\nAPT::Sandbox::User \"\";\n\
             APT::Install-Recommends \"false\";\nAPT::Install-Suggests \"false\";\nDpkg::Use-Pty \"false\";\n"
        ));
        fs::write(self.folder.join("apt.conf"), settings).map_err(wrong)
    }

    fn tool(&self, arguments: &[&str], names: &[String]) -> Result<Ran, Problem> {
        let mut command = vec!["/usr/bin/apt-get".to_owned()];
        command.extend(arguments.iter().map(|a| (*a).to_owned()));
        command.extend(names.iter().cloned());
        let environment = BTreeMap::from([
            ("APT_CONFIG".to_owned(), self.folder.join("apt.conf").display().to_string()),
            ("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("HOME".to_owned(), self.folder.display().to_string()),
        ]);
        self.run(command, environment)
    }

    fn run(&self, command: Vec<String>, environment: BTreeMap<String, String>) -> Result<Ran, Problem> {
        let program = program(command, environment, self.folder);
        run_program(program, &self.folder.join("log"), TOOL_SECONDS, self.line)
    }

    /// Whether it refreshed.
    fn refresh_if_stale(&self) -> Result<bool, Problem> {
        let age = fs::metadata(self.folder.join("refreshed"))
            .and_then(|m| m.modified())
            .ok()
            .and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age < STALE) {
            return Ok(false);
        }
        self.refresh().map(|()| true)
    }

    fn refresh(&self) -> Result<(), Problem> {
        self.line.progress("> fetching package lists")?;
        let ran = self.tool(&["update", "--error-on=any"], &[])?;
        if ran.exit != Exit::Code(0) {
            // One archive of several may be away; what is needed may be in the others.
            let again = self.tool(&["update"], &[])?;
            if again.exit != Exit::Code(0) {
                return Err(fetch_failed("apt-get update failed", &again));
            }
        }
        fs::write(self.folder.join("refreshed"), "")
            .map_err(|e| io_problem(codes::SOURCE_FETCH, "cannot prepare a folder for apt", &e))
    }

    /// All packages that are needed beyond the base system. Asked with an empty cache, so that all of them are told.
    fn resolve(&self, names: &[String]) -> Result<Vec<Package>, Problem> {
        self.line.progress("> resolving packages")?;
        let empty = format!("Dir::Cache::archives={}/none", self.folder.display());
        let ask = std::process::Command::new("/usr/bin/apt-get")
            .args(["-qq", "-o", &empty, "install", "--print-uris", "-y", "--"])
            .args(names)
            .env_clear()
            .env("APT_CONFIG", self.folder.join("apt.conf"))
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LANG", "C.UTF-8")
            .stdin(std::process::Stdio::null())
            .output()
            .map_err(|e| io_problem(codes::SOURCE_FETCH, "cannot run apt-get", &e))?;
        if !ask.status.success() {
            let said = String::from_utf8_lossy(&ask.stderr);
            let last: Vec<&str> = said.lines().rev().take(8).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            return Err(Problem::new(codes::SOURCE_FETCH, format!("apt cannot resolve {}", names.join(" ")))
                .because(last.join("\n"))
                .fix("check the names, and that this node's package sources have them"));
        }
        let text = String::from_utf8_lossy(&ask.stdout);
        let packages: Vec<Package> = text.lines().filter_map(parse_uri).collect();
        if packages.is_empty() {
            return Err(Problem::new(
                codes::SOURCE_FETCH,
                format!("there is nothing to fetch for {}", names.join(" ")),
            )
            .because("all of it is part of the base system"));
        }
        Ok(packages)
    }

    fn fetch(&self, names: &[String], packages: &[Package]) -> Result<(), Problem> {
        let missing: Vec<&Package> = packages.iter().filter(|p| !self.path(p).exists()).collect();
        for (n, package) in missing.iter().enumerate() {
            let name = package.file.split('_').next().unwrap_or_default();
            self.line.progress(format!("> fetching {name} ({} of {})", n + 1, missing.len()))?;
            // apt's own fetcher: its proxies, credentials and transports, its check of size and checksum.
            let to = format!("{}/cache/archives/partial/{}", self.folder.display(), package.file);
            let arguments = ["-qq", "download-file", package.url.as_str(), &to, &format!("SHA256:{}", package.sha256)];
            let mut command = vec!["/usr/lib/apt/apt-helper".to_owned()];
            command.extend(arguments.iter().map(|a| (*a).to_owned()));
            let environment = BTreeMap::from([
                ("APT_CONFIG".to_owned(), self.folder.join("apt.conf").display().to_string()),
                ("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ]);
            let ran = self.run(command, environment)?;
            if ran.exit != Exit::Code(0) {
                return Err(fetch_failed(&format!("cannot fetch {name} for {}", names.join(" ")), &ran));
            }
            fs::rename(&to, self.path(package))
                .map_err(|e| io_problem(codes::SOURCE_FETCH, format!("cannot keep {}", package.file), &e))?;
        }
        Ok(())
    }

    fn path(&self, package: &Package) -> PathBuf {
        self.folder.join("cache/archives").join(&package.file)
    }

    fn unpack(&self, packages: &[Package], into: &Path) -> Result<Vec<Ingredient>, Problem> {
        let wrong = |e: &io::Error| {
            io_problem(codes::BUILD_FAILED, format!("cannot unpack packages into {}", into.display()), e)
        };
        // As on a Debian system today: what a package puts into /bin is in /usr/bin.
        for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
            fs::create_dir_all(into.join("usr").join(name)).map_err(|e| wrong(&e))?;
            match std::os::unix::fs::symlink(format!("usr/{name}"), into.join(name)) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                made => made.map_err(|e| wrong(&e))?,
            }
        }
        let mut ingredients = Vec::new();
        for (n, package) in packages.iter().enumerate() {
            let path = self.path(package);
            let mut parts = package.file.trim_end_matches(".deb").split('_');
            let name = parts.next().unwrap_or_default().to_owned();
            let version = parts.next().unwrap_or_default().replace("%3a", ":");
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
            let ran = self.run(command.to_vec(), environment)?;
            if ran.exit != Exit::Code(0) {
                return Err(failed(&format!("cannot unpack {name}"), &ran, TOOL_SECONDS));
            }
            ingredients.push(Ingredient { name, version, sha256: found });
        }
        let staging = Tree::open(into, "")?;
        staging.root_links(Links::ToWhatIsThere).map_err(|e| wrong(&e))?;
        Ok(ingredients)
    }
}

/// A line of `--print-uris`: `'URL' file size SHA256:…`.
fn parse_uri(line: &str) -> Option<Package> {
    let (url, rest) = line.strip_prefix('\'')?.split_once("' ")?;
    let mut fields = rest.split(' ');
    let (file, _size, hash) = (fields.next()?, fields.next()?, fields.next()?);
    let sha256 = hash.strip_prefix("SHA256:")?.to_owned();
    (!file.contains('/') && file.ends_with(".deb")).then(|| Package {
        url: url.to_owned(),
        file: file.to_owned(),
        sha256,
    })
}

fn fetch_failed(what: &str, ran: &Ran) -> Problem {
    let mut problem = failed(what, ran, TOOL_SECONDS);
    if problem.code != codes::DISK_FULL {
        problem.code = codes::SOURCE_FETCH;
    }
    problem.fix("check that this node reaches its package sources (`apt-get update`)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_apt_names_url_file_and_checksum() {
        let hash = "a".repeat(64);
        let package =
            parse_uri(&format!("'http://x/p/redis_5%253a7.0_all.deb' redis_5%3a7.0_all.deb 123 SHA256:{hash}"))
                .unwrap();
        assert_eq!((package.file.as_str(), package.sha256), ("redis_5%3a7.0_all.deb", hash));
        assert!(parse_uri("'http://x/p' ../../etc/x.deb 1 SHA256:00").is_none());
        assert!(parse_uri("Reading package lists...").is_none());
    }
}
