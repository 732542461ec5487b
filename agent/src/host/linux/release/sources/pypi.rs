//! Python packages, as wheels, each pinned by version and SHA-256. pip fetches them, for it knows indexes, and which file
//! fits this node's Python; each file is checked again here; then pip installs exactly those files, without a network.
//!
//! They are installed into a folder (`pip install --target`) and not into a virtual environment: that would hold the path
//! it was made at, and a release is made elsewhere than it is used. Source archives are refused, for building one runs
//! it: wheels are only unpacked.

use super::fetch::checksum;
use super::tools::{Tool, scratch};
use super::tree::Tree;
use super::{directory, fetch, unpack};
use crate::host::linux::disk::io_problem;
use crate::host::linux::release::build::Ingredient;
use crate::host::linux::release::cache::{task::TRUST, trust};
use crate::host::linux::shim::tree::Exit;
use crate::host::linux::task::{Line, Ran};
use plat_document::release::PypiPackage;
use plat_model::Problem;
use plat_model::problem::codes;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Tells how many entries and bytes are in wheels: no more is unpacked of one than it says of itself.
const SIZES: &str = "import sys, zipfile\n\
    all = [i for f in sys.argv[1:] for i in zipfile.ZipFile(f).infolist()]\n\
    sys.exit(0 if len(all) <= 2_000_000 and sum(i.file_size for i in all) <= 32 << 30 else 'it is too large unpacked')\n";

pub struct Wheels<'a> {
    pub packages: &'a [PypiPackage],
    /// Its http(s) URL.
    pub index: &'a str,
    /// A file of certificates: whose word a server is taken on, instead of whom the machine trusts.
    pub authorities: Option<&'a Path>,
}

struct Pip<'a> {
    python: Tool,
    /// Home of pip, empty at first.
    folder: &'a Path,
    line: &'a Line,
    /// The index proves who it is, and so is everything that it leads to.
    https: bool,
}

impl Wheels<'_> {
    pub fn lay(&self, tree: &Tree, staging: &Path, line: &Line) -> Result<Vec<Ingredient>, Problem> {
        let packages = self.packages;
        let ingredients = scratch(staging, |folder| {
            let pip = Pip { python: python()?, folder, line, https: self.index.starts_with("https://") };
            line.progress(format!("> fetching {} Python packages", files_of(packages).len()))?;
            pip.fetch(self)?;
            let (wheels, ingredients) = pip.check(packages)?;
            line.progress("> installing Python packages")?;
            pip.install(&wheels)?;
            let installed = folder.join("installed");
            directory::copy(&installed, tree)
                .map_err(|e| unpack::problem("cannot install Python packages".to_owned(), &e))?;
            Ok(ingredients)
        })?;
        unpack::refuse_links_out("cannot install Python packages".to_owned(), tree)?;
        Ok(ingredients)
    }
}

fn python() -> Result<Tool, Problem> {
    Tool::find("python3")
}

/// Whether this node has Python and pip.
///
/// # Errors
/// PREREQUISITE.
pub fn prerequisite() -> Result<(), Problem> {
    let python = python()?;
    let asked = std::process::Command::new(&python.path).args(["-I", "-m", "pip", "--version"]).env_clear().output();
    if asked.is_ok_and(|said| said.status.success()) {
        return Ok(());
    }
    Err(Problem::new(codes::PREREQUISITE, format!("{} has no pip", python.path.display()))
        .because("Python packages are fetched and installed with it")
        .fix("install it (`apt-get install python3-pip`), or supply the release to other nodes"))
}

/// Package and version → the checksums that its file may have.
fn files_of(packages: &[PypiPackage]) -> BTreeMap<(String, &str), Vec<&str>> {
    let mut files: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for package in packages {
        files.entry((package.plain_name(), package.version.as_str())).or_default().push(package.sha256.as_str());
    }
    files
}

impl Pip<'_> {
    fn run(&self, arguments: &[&str]) -> Result<Ran, Problem> {
        let home = self.folder.display().to_string();
        // Where there is no such way, nobody can lead there.
        let no_http = self.https.then_some(("http_proxy", "http://127.0.0.1:9"));
        let environment = [
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("LANG", "C.UTF-8"),
            ("HOME", &home),
            ("TMPDIR", &home),
            // No settings of this host's.
            ("PIP_CONFIG_FILE", "/dev/null"),
            ("PYTHONDONTWRITEBYTECODE", "1"),
        ];
        let environment = environment.into_iter().chain(no_http);
        let environment = environment.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let arguments = ["-I"].iter().chain(arguments).map(|word| (*word).to_owned()).collect();
        self.python.run(arguments, environment, self.folder, self.line)
    }

    fn pip(&self, verb: &str, arguments: &[&str]) -> Result<Ran, Problem> {
        let always =
            ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check", "--no-input"];
        let start = ["-m", "pip", "--isolated", verb, "--quiet"];
        self.run(&[&start[..], &always, arguments].concat())
    }

    fn fetch(&self, from: &Wheels<'_>) -> Result<(), Problem> {
        let Wheels { packages, index, authorities } = *from;
        let mut wanted = String::new();
        for ((name, version), sums) in files_of(packages) {
            // A word of this file could be an option of pip's: documents are checked, and this is checked again where it is used.
            let is_word = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "._-+!".contains(c));
            if ![name.as_str(), version].iter().chain(&sums).all(|text| is_word(text)) {
                return Err(Problem::new(
                    codes::SOURCE_FETCH,
                    "a Python package has a name, version or checksum that is none",
                ));
            }
            let _ = write!(wanted, "{name}=={version}");
            sums.iter().for_each(|sum| _ = write!(wanted, " --hash=sha256:{sum}"));
            wanted.push('\n');
        }
        let path = self.folder.join("wanted").display().to_string();
        fs::write(&path, wanted).map_err(|e| io_problem(codes::SOURCE_FETCH, "cannot fetch Python packages", &e))?;
        let mut arguments = vec!["--require-hashes", "--requirement", &path, "--dest", "files", "--index-url", index];
        // The checksums say what is right, wherever it comes from.
        let host = index.strip_prefix("http://").and_then(|rest| rest.split('/').next());
        arguments.extend(host.iter().flat_map(|host| ["--trusted-host", host]));
        // Not every pip goes by whom the machine trusts.
        let authorities = authorities.or_else(|| trust::file_of_machine().filter(|_| self.https));
        let authorities = authorities.map(|path| path.display().to_string());
        arguments.extend(authorities.iter().flat_map(|path| ["--cert", path]));
        let ran = self.pip("download", &arguments)?;
        if !ran.timed_out && ran.exit == Exit::Code(0) {
            return Ok(());
        }
        let mut problem = self
            .python
            .failed(format!("cannot fetch Python packages from {index}"), &ran)
            .fix("check names, versions and checksums, and that there is a wheel for this node's Python");
        let said = |words: &str| ran.tail.iter().any(|text| text.contains(words));
        if said("CERTIFICATE_VERIFY_FAILED") {
            return Err(problem.fix(TRUST));
        }
        if said("DO NOT MATCH THE HASHES") {
            problem.code = codes::SOURCE_CHECKSUM;
        } else if problem.code != codes::DISK_FULL && said("ERROR: Wheel") && said("is invalid") {
            problem.code = codes::BAD_ARCHIVE;
        }
        Err(problem)
    }

    /// The files, each of which is one that the release names.
    fn check(&self, packages: &[PypiPackage]) -> Result<(Vec<String>, Vec<Ingredient>), Problem> {
        let wrong = |e: io::Error| io_problem(codes::SOURCE_FETCH, "cannot read what pip fetched", &e);
        let (mut wheels, mut ingredients) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(self.folder.join("files")).map_err(wrong)? {
            let path: PathBuf = entry.map_err(wrong)?.path();
            let mut file = File::open(&path).map_err(wrong)?;
            let sum = checksum(&mut file).map_err(wrong)?;
            let shown = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(package) = packages.iter().find(|package| package.sha256 == sum) else {
                return Err(fetch::unlike(&shown, "SHA-256", &sum, "one of those in the release"));
            };
            let PypiPackage { name, version, .. } = package.clone();
            ingredients.push(Ingredient { name, version, sha256: sum });
            wheels.push(path.display().to_string());
        }
        if wheels.len() != files_of(packages).len() {
            return Err(Problem::new(codes::SOURCE_FETCH, "pip did not fetch every Python package").because(format!(
                "it brought {} files for {} packages",
                wheels.len(),
                files_of(packages).len()
            )));
        }
        wheels.sort();
        ingredients.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((wheels, ingredients))
    }

    fn install(&self, wheels: &[String]) -> Result<(), Problem> {
        let files: Vec<&str> = wheels.iter().map(String::as_str).collect();
        let sizes = self.run(&[&["-c", SIZES][..], &files].concat())?;
        let target = ["--no-index", "--no-compile", "--no-warn-script-location", "--target", "installed"];
        let ran = match sizes.exit {
            Exit::Code(0) => self.pip("install", &[&target[..], &files].concat())?,
            _ => sizes,
        };
        if ran.timed_out || ran.exit != Exit::Code(0) {
            let problem = self.python.failed("cannot install Python packages".to_owned(), &ran);
            let code = if problem.code == codes::DISK_FULL { problem.code } else { codes::BAD_ARCHIVE };
            return Err(Problem { code, ..problem });
        }
        Ok(())
    }
}
