//! Making a grid: the CA, the store with its first records, the configuration, and the first operator's credentials.
//! All of it or nothing: everything is made beside its place and moved there at the end. And the way back in, should
//! no operator's credentials be good any more.

mod draft;
mod recover;

pub use recover::{Recovery, recover};

use crate::clock::Clock;
use crate::config::Config;
use crate::keyfile::{self, unwritable};
use crate::pki::Serial;
use crate::pki::ca::Ca;
use crate::pki::csr::RequestedKey;
use crate::store::{self, CommitError, EngineKind, Store};
use draft::{Draft, Parents};
use plat_link::{Address, Credentials, Key};
use plat_master_plan::certify::{USER_VALIDITY, first_operator};
use plat_master_plan::record::{Grid, Record};
use plat_master_plan::{Change, Expected};
use plat_model::Problem;
use plat_model::id::{GridName, UserName};
use plat_model::identity::Identity;
use plat_model::problem::codes;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Init {
    /// Becomes the data folder; empty or missing.
    pub data: PathBuf,
    /// Where the configuration goes; `None`: `master.toml` in the data folder.
    pub config: Option<PathBuf>,
    pub grid: GridName,
    pub url: Address,
    pub listen: Vec<SocketAddr>,
    pub operator: UserName,
    /// Becomes the operator's profile folder; must not exist.
    pub profile: PathBuf,
    pub store: EngineKind,
    /// Uid and gid that the data folder is given to; `None`: it stays with whoever makes it.
    pub owner: Option<(u32, u32)>,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    pub config: PathBuf,
    pub profile: PathBuf,
    pub root_key: PathBuf,
}

/// Makes a grid. Folders above what it makes are made too, for all to pass; the data folder and the profile are for
/// their owners only, and the configuration, which holds no secret, is for all to read.
///
/// # Errors
/// [`codes::EXISTS`] if there is one already, [`codes::KEY_FILE`] if a file cannot be written, and the store's.
/// Nothing is left behind.
pub async fn init(ask: &Init, clock: &dyn Clock) -> Result<Made, Problem> {
    refuse_existing(&ask.data)?;
    if ask.profile.symlink_metadata().is_ok() {
        return Err(exists(&ask.profile, "move it away, or name another folder with --profile"));
    }
    if let Some(config) = ask.config.as_ref().filter(|path| path.symlink_metadata().is_ok()) {
        return Err(exists(config, "move it away, or name another file with --config"));
    }
    let mut parents = Parents::default();
    let (mut data, mut profile) = (Draft::new(&ask.data, &mut parents)?, Draft::new(&ask.profile, &mut parents)?);
    let ca = Ca::create(&data.path.join("ca"), &ask.grid, clock.now())?;
    let operator = Operator { grid: &ask.grid, url: &ask.url, name: &ask.operator };
    let serial = operator.write(&ca, &profile.path, clock)?;
    let store = store::open(&data.path.join("store"), Some(ask.store))?;
    first_records(ask, store, &serial, clock).await?;
    let config = match &ask.config {
        None => {
            let text = Config::render(&ask.url, &ask.listen, Path::new("."));
            keyfile::write_public(&data.path.join("master.toml"), &text)?;
            ask.data.join("master.toml")
        }
        Some(path) => {
            let folder = std::path::absolute(&ask.data).map_err(|e| unwritable(&ask.data, e))?;
            parents.above(path)?;
            keyfile::write_public(path, &Config::render(&ask.url, &ask.listen, &folder))?;
            path.clone()
        }
    };
    let given = ask.owner.map_or(Ok(()), |owner| draft::give(&data.path, owner));
    let placed = given.and_then(|()| profile.place()).and_then(|()| data.place());
    if let Err(problem) = placed {
        // None may stay without the others.
        if let Some(path) = &ask.config {
            let _ = std::fs::remove_file(path);
        }
        return Err(problem);
    }
    data.keep();
    profile.keep();
    parents.keep();
    Ok(Made { config, profile: ask.profile.clone(), root_key: ask.data.join("ca").join("root.key") })
}

/// An operator's profile.
struct Operator<'a> {
    grid: &'a GridName,
    url: &'a Address,
    name: &'a UserName,
}

impl Operator<'_> {
    /// The operator's key is made here because there is nobody else yet: it is written to his folder, and nowhere else.
    fn write(&self, ca: &Ca, folder: &Path, clock: &dyn Clock) -> Result<Serial, Problem> {
        let key = Key::generate()?;
        let serial = Serial::random()?;
        let validity = ca.validity(clock.now(), USER_VALIDITY);
        let who = Identity::User(self.name.clone());
        let chain = ca.sign_client(self.grid, &who, &RequestedKey::parse(&key.csr_der()?)?, &serial, validity)?;
        Credentials::new(self.grid.clone(), key, chain, vec![ca.root_der().to_vec()])?
            .save(&folder.join("credentials.pem"))?;
        let profile = format!(
            "version = 1\nurl = {}\ngrid = {}\nuser = {}\n",
            toml::Value::from(self.url.to_string()),
            toml::Value::from(self.grid.as_str()),
            toml::Value::from(self.name.as_str()),
        );
        keyfile::write(&folder.join("profile.toml"), &profile)?;
        Ok(serial)
    }
}

/// Writes the grid's record and its first operator into an empty store.
///
/// # Errors
/// The store's; [`codes::EXISTS`] if it holds a grid already.
pub async fn first_records(
    ask: &Init,
    store: Arc<dyn Store>,
    serial: &Serial,
    clock: &dyn Clock,
) -> Result<(), Problem> {
    let snapshot = store.snapshot();
    let decision = first_operator(&snapshot.state, ask.operator.clone(), &serial.hex())?;
    let mut changes = decision.changes;
    changes.push(Change::put(Record::Grid(Grid { name: ask.grid.clone(), created: clock.now() })));
    let expected = Expected { at: snapshot.revision, read: decision.read };
    match store.commit(expected, changes).await {
        Ok(_) => Ok(()),
        Err(CommitError::Failed(problem)) => Err(problem),
        Err(CommitError::Conflict(_)) => Err(Problem::new(codes::EXISTS, "the store holds a grid already")),
    }
}

fn refuse_existing(data: &Path) -> Result<(), Problem> {
    match std::fs::read_dir(data).map(Iterator::count) {
        Ok(0) => Ok(()),
        Ok(_) => {
            Err(exists(data, "if it is a grid, run it with `plat-master run`; else name another folder with --data"))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(unwritable(data, e)),
    }
}

fn exists(path: &Path, todo: &str) -> Problem {
    Problem::new(codes::EXISTS, format!("`{}` exists already", path.display()))
        .because("a grid is made once, and nothing is written over")
        .fix(todo)
}
