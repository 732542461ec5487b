//! Debian packages: resolved by apt itself in a folder of its own. It checks its indexes' signatures with the machine's
//! keys.

mod base;

use plat_model::Problem;
use plat_model::problem::codes;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Indexes older than this are fetched again.
const STALE: Duration = Duration::from_secs(24 * 3600);
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// One package to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub url: String,
    /// Its file's name.
    pub file: String,
    pub sha256: String,
}

/// Who runs the tools.
pub trait Tools {
    /// Runs a program to its end.
    ///
    /// # Errors
    /// If it cannot be run; that it fails is told in [`Ran`].
    fn run(&self, command: Vec<String>, environment: BTreeMap<String, String>) -> Result<Ran, Problem>;

    /// Tells people what is being done.
    ///
    /// # Errors
    /// If nobody waits for it any more.
    fn tell(&self, doing: &str) -> Result<(), Problem>;
}

/// What a program did.
pub struct Ran {
    /// Why it failed, with its last lines.
    pub failure: Option<Problem>,
}

/// apt in a folder of its own.
pub struct Apt<'a> {
    pub folder: &'a Path,
    pub tools: &'a dyn Tools,
}

fn io_problem(what: impl Into<String>, e: &io::Error) -> Problem {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Problem::new(codes::DISK_FULL, what)
            .because(e)
            .fix("free some space on that file system, or raise its quota"),
        _ => Problem::new(codes::SOURCE_FETCH, what).because(e),
    }
}

/// # Errors
/// BAD_VALUE for what could be an option, or anything else that is no name of a package.
fn check_names(names: &[String]) -> Result<(), Problem> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "+-.:=~".contains(c);
    let wrong = |name: &&String| !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(legal);
    names.iter().find(wrong).map_or(Ok(()), |name| {
        let shown = plat_model::id::shorten(name);
        Err(Problem::new(codes::BAD_VALUE, format!("`{shown}` is not a package name")))
    })
}

impl Apt<'_> {
    /// All packages that are needed beyond the base system, of indexes that are not stale; `with` may ask for fresh ones once
    /// more by failing.
    ///
    /// # Errors
    /// BAD_VALUE, SOURCE_FETCH, DISK_FULL, and those of `with`.
    pub fn packages<T>(
        &self,
        names: &[String],
        with: impl Fn(&[Package]) -> Result<T, Problem>,
    ) -> Result<(Vec<Package>, T), Problem> {
        check_names(names)?;
        self.prepare()?;
        let fresh = self.is_stale().then(|| self.refresh()).transpose()?;
        let attempt = |away: Option<&Problem>| {
            let packages = self.resolve(names).map_err(|problem| match away {
                Some(away) if problem.code == codes::SOURCE_FETCH => not_reached(problem, away),
                _ => problem,
            })?;
            with(&packages).map(|done| (packages, done))
        };
        match (attempt(fresh.as_ref().and_then(Option::as_ref)), &fresh) {
            (Err(_), None) => {
                let away = self.refresh()?;
                attempt(away.as_ref())
            }
            (other, _) => other,
        }
    }

    fn prepare(&self) -> Result<(), Problem> {
        let wrong = |e: io::Error| io_problem("cannot prepare a folder for apt", &e);
        for folder in ["state/lists/partial", "cache/archives/partial", "none", "parts"] {
            fs::create_dir_all(self.folder.join(folder)).map_err(wrong)?;
        }
        let status = fs::read_to_string("/var/lib/dpkg/status").map_err(|e| {
            io_problem("this machine has no Debian packages", &e).fix("use sources of another kind on this machine")
        })?;
        fs::write(self.folder.join("status"), base::base_system(&status)).map_err(wrong)?;
        // How this host reaches its archives, and nothing else of its settings: those may run programs.
        let dump = std::process::Command::new("/usr/bin/apt-config")
            .arg("dump")
            .env_clear()
            .output()
            .map_err(|e| io_problem("cannot run apt-config", &e))?;
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

    /// What the tools find their settings with.
    pub fn environment(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("APT_CONFIG".to_owned(), self.folder.join("apt.conf").display().to_string()),
            ("PATH".to_owned(), PATH.to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("HOME".to_owned(), self.folder.display().to_string()),
        ])
    }

    fn update(&self, rest: &[&str]) -> Result<Ran, Problem> {
        let words = ["/usr/bin/apt-get", "update"].iter().chain(rest).map(|word| (*word).to_owned());
        self.tools.run(words.collect(), self.environment())
    }

    /// Whether all package sources have not been read for long.
    fn is_stale(&self) -> bool {
        let read = fs::metadata(self.folder.join("refreshed")).and_then(|m| m.modified()).ok();
        read.and_then(|at| at.elapsed().ok()).is_none_or(|age| age >= STALE)
    }

    /// Why not all package sources could be read, if some were.
    fn refresh(&self) -> Result<Option<Problem>, Problem> {
        self.tools.tell("fetching package lists")?;
        let away = self.update(&["--error-on=any"])?.failure;
        if away.is_some() {
            // One archive of several may be away; what is needed may be in the others.
            if let Some(problem) = self.update(&[])?.failure {
                return Err(problem);
            }
        }
        fs::write(self.folder.join("refreshed"), "").map_err(|e| io_problem("cannot prepare a folder for apt", &e))?;
        Ok(away)
    }

    /// Asked with an empty cache, so that all of them are told.
    fn resolve(&self, names: &[String]) -> Result<Vec<Package>, Problem> {
        self.tools.tell("resolving packages")?;
        let empty = format!("Dir::Cache::archives={}/none", self.folder.display());
        let ask = std::process::Command::new("/usr/bin/apt-get")
            .args(["-qq", "-o", &empty, "install", "--print-uris", "-y", "--"])
            .args(names)
            .env_clear()
            .envs(self.environment())
            .stdin(std::process::Stdio::null())
            .output()
            .map_err(|e| io_problem("cannot run apt-get", &e))?;
        if !ask.status.success() {
            let said = String::from_utf8_lossy(&ask.stderr);
            let last: Vec<&str> = said.lines().rev().take(8).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            return Err(Problem::new(codes::SOURCE_FETCH, format!("apt cannot resolve {}", names.join(" ")))
                .because(last.join("\n"))
                .fix("check the names, and that this machine's package sources have them"));
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
}

/// Names that could not be resolved after not all package sources were read: the names may well be right.
fn not_reached(problem: Problem, away: &Problem) -> Problem {
    let why = format!("not all package sources could be read: {}\n{}", away.why, problem.why);
    Problem::new(problem.code, problem.what).because(why).fix(
        "see whether this machine reaches its package sources (`apt-get update` as root tells which not); if it does, check the names",
    )
}

/// A line of `--print-uris`: `'URL' file size SHA256:…`.
fn parse_uri(line: &str) -> Option<Package> {
    let (url, rest) = line.strip_prefix('\'')?.split_once("' ")?;
    let mut fields = rest.split(' ');
    let (file, _size, hash) = (fields.next()?, fields.next()?, fields.next()?);
    let sha256 = hash.strip_prefix("SHA256:")?.to_owned();
    let mut parts = file.strip_suffix(".deb")?.split('_');
    let (name, version) = (parts.next()?.to_owned(), parts.next()?.replace("%3a", ":"));
    (!file.contains('/')).then(|| Package { name, version, url: url.to_owned(), file: file.to_owned(), sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_apt_names_url_file_and_checksum() {
        let hash = "a".repeat(64);
        let line = format!("'http://x/p/redis_5%253a7.0_all.deb' redis_5%3a7.0_all.deb 123 SHA256:{hash}");
        let package = parse_uri(&line).unwrap();
        assert_eq!((package.file.as_str(), package.sha256), ("redis_5%3a7.0_all.deb", hash));
        assert_eq!((package.name.as_str(), package.version.as_str()), ("redis", "5:7.0"));
        assert!(parse_uri("'http://x/p' ../../etc/x.deb 1 SHA256:00").is_none());
        assert!(parse_uri("Reading package lists...").is_none());
    }

    #[test]
    fn what_could_be_an_option_is_no_name_of_a_package() {
        let names = |text: &str| check_names(&[text.to_owned()]);
        assert!(names("redis-tools=5:7.0~rc1-1").is_ok());
        for bad in ["-oAPT::x", "", "a b", "a;b", "../x"] {
            assert!(names(bad).is_err(), "{bad}");
        }
    }

    /// Reads no package list, as on a machine that reaches none of its sources; apt itself calls that well.
    struct Away;

    impl Tools for Away {
        fn run(&self, command: Vec<String>, _: BTreeMap<String, String>) -> Result<Ran, Problem> {
            let strict = command.iter().any(|word| word == "--error-on=any");
            let away =
                || Problem::new(codes::SOURCE_FETCH, "apt-get failed").because("Could not resolve 'deb.example'");
            Ok(Ran { failure: strict.then(away) })
        }

        fn tell(&self, _: &str) -> Result<(), Problem> {
            Ok(())
        }
    }

    #[test]
    fn a_machine_that_does_not_reach_its_package_sources_is_told_so_and_not_to_check_names_first() {
        if !Path::new("/usr/bin/apt-get").exists() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let apt = Apt { folder: folder.path(), tools: &Away };
        // The lists are fresh from the second time on, and looked for once more.
        for _ in 0..2 {
            let problem = apt.packages(&["plat-no-such-package".to_owned()], |_| Ok(())).unwrap_err();
            let unread = "not all package sources could be read: Could not resolve 'deb.example'";
            assert!(problem.why.starts_with(unread), "{problem}");
            assert!(problem.todo.starts_with("see whether this machine reaches its package sources"), "{problem}");
        }
    }
}
