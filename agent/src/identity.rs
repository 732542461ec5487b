//! Who this node is: keys made here that never leave, certificates that the grid gives for them.
//!
//! Two of them: the node's own, renewed at half its life, and the rejoin certificate, good for nothing but asking for a
//! new one when the node has slept past the end of its own.

mod enrol;
mod renew;

pub use enrol::{Enrolment, enroll, enroll_again, enrolled_already};
pub(crate) use renew::keep;

use crate::durable;
use plat_link::Credentials;
use plat_model::Problem;
use plat_model::id::{GridName, NodeId};
use plat_model::identity::Identity as Who;
use plat_model::problem::codes;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FORM: &str = "plat-enrolled";
const VERSION: u32 = 1;

/// What is written last when a node enrols: with it the node is one, without it it is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Enrolled {
    pub grid: GridName,
    pub node: NodeId,
    /// `https://HOST:PORT`
    pub master: String,
}

impl Enrolled {
    /// # Errors
    /// BAD_STATE_FILE if this node is not enrolled or the file is damaged.
    fn load(paths: &Paths) -> Result<Self, Problem> {
        let enrolled: Option<Self> = durable::read(&paths.enrolled, FORM, VERSION)?;
        enrolled.ok_or_else(|| not_enrolled(&paths.enrolled))
    }
}

/// Whether this node is enrolled: to be asked before anything is made on its disk.
///
/// # Errors
/// BAD_STATE_FILE if it is not.
pub fn expect_enrolled(data: &Path) -> Result<(), Problem> {
    let path = Paths::new(data).enrolled;
    // Whether it can be used says who reads it: the folder may be another user's, who could lead a reader anywhere.
    match std::fs::symlink_metadata(&path) {
        Ok(found) if found.is_file() => Ok(()),
        _ => Err(not_enrolled(&path)),
    }
}

fn not_enrolled(path: &Path) -> Problem {
    Problem::new(codes::BAD_STATE_FILE, "this node is not enrolled")
        .because(format!("`{}` does not exist", path.display()))
        .fix("run `plat-agent enroll --master URL --token-file FILE` with a token of `plat token create`")
}

/// Where the parts of an identity are, in the agent's data folder.
pub(crate) struct Paths {
    pub enrolled: PathBuf,
    pub own: PathBuf,
    pub rejoin: PathBuf,
    /// The keys of an enrolment that has no answer yet.
    pub enrolling: PathBuf,
}

impl Paths {
    pub fn new(data: &Path) -> Self {
        Self {
            enrolled: data.join("enrolled"),
            own: data.join("identity.pem"),
            rejoin: data.join("rejoin.pem"),
            enrolling: data.join("enrolling"),
        }
    }
}

/// An enrolled node.
pub(crate) struct Identity {
    pub enrolled: Enrolled,
    pub own: Arc<Credentials>,
    pub rejoin: Arc<Credentials>,
    pub paths: Paths,
}

impl Identity {
    /// # Errors
    /// BAD_STATE_FILE if this node is not enrolled or a file is damaged; KEY_FILE for a key that cannot be used, or that
    /// is another node's; TLS for one of another grid.
    pub fn load(data: &Path) -> Result<Self, Problem> {
        let paths = Paths::new(data);
        let enrolled = Enrolled::load(&paths)?;
        let own = load_for(&enrolled, &paths.own, &Who::Node(enrolled.node.clone()))?;
        let rejoin = load_for(&enrolled, &paths.rejoin, &Who::Rejoin(enrolled.node.clone()))?;
        Ok(Self { enrolled, own, rejoin, paths })
    }
}

/// Credentials that are this node's own: with another's it would take and report what is that node's.
fn load_for(enrolled: &Enrolled, path: &Path, wanted: &Who) -> Result<Arc<Credentials>, Problem> {
    let credentials = Credentials::load(enrolled.grid.clone(), path)?;
    is_for(&credentials, wanted).map_err(|why| {
        Problem::new(codes::KEY_FILE, format!("`{}` is not this node's", path.display())).because(why).fix(
            "put the node's own file back; if it is lost, have an operator revoke the node and make a token for its \
             name, and run `plat-agent enroll --again`",
        )
    })?;
    Ok(credentials)
}

/// # Errors
/// TLS if what the master made is for somebody else.
fn certified(made: &Credentials, wanted: &Who) -> Result<(), Problem> {
    is_for(made, wanted).map_err(|why| Problem::new(codes::TLS, "the master certified somebody else").because(why))
}

/// Why these credentials are not for `wanted`, if they are not.
fn is_for(credentials: &Credentials, wanted: &Who) -> Result<(), String> {
    let found = credentials.identity().identity;
    if found == *wanted { Ok(()) } else { Err(format!("its certificate is for {found}, and this node is {wanted}")) }
}
