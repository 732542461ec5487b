//! The way back into a grid of which no operator's credentials are good: whoever holds the stopped master's data makes
//! new ones.

use super::draft::{Draft, Parents};
use super::{Operator, exists};
use crate::clock::Clock;
use crate::config::Config;
use crate::pki::ca::Ca;
use crate::store::{self, CommitError, Snapshot, Store};
use plat_master_plan::certify::recover_operator;
use plat_master_plan::record::{AuditEntry, Record};
use plat_master_plan::{Change, Expected};
use plat_model::Problem;
use plat_model::id::UserName;
use plat_model::problem::codes;
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Who is to be an operator.
#[derive(Debug, Clone)]
pub struct Recovery {
    pub name: UserName,
    /// Becomes the operator's profile folder; must not exist.
    pub profile: PathBuf,
}

/// Makes an operator with new credentials, or new credentials for one. Root may do it for the user that the data belongs
/// to.
///
/// # Errors
/// `STORE_FAILED` while a master runs on the data; `EXISTS` if the profile exists, or the user and is no operator;
/// `KEY_FILE`, and the store's. Nothing is left behind.
pub async fn recover(ask: &Recovery, config: &Config, clock: &dyn Clock) -> Result<(), Problem> {
    if ask.profile.symlink_metadata().is_ok() {
        return Err(exists(&ask.profile, "move it away, or name another folder with --profile"));
    }
    // Of the data folder itself: what is in it the owner may have made a link.
    let meta = std::fs::metadata(&config.data).map_err(|e| no_store(&config.data, e))?;
    let (ca, store) = open_as(meta.uid(), meta.gid(), config)?;
    let Snapshot { revision, state } = store.snapshot();
    let grid = state.grid.as_ref().ok_or_else(|| {
        Problem::new(codes::STORE_FAILED, "the store holds no grid").fix("make one with `plat-master init`")
    })?;
    let mut parents = Parents::default();
    let mut profile = Draft::new(&ask.profile, &mut parents)?;
    let operator = Operator { grid: &grid.name, url: &config.url, name: &ask.name };
    let serial = operator.write(&ca, &profile.path, clock)?;
    let decision = recover_operator(&state, ask.name.clone(), &serial.hex())?;
    let mut changes = decision.changes;
    changes.push(Change::put(Record::Audit(AuditEntry {
        number: 0,
        at: clock.now(),
        who: "master".into(),
        from: "master".into(),
        verb: "RecoverOperator".into(),
        subject: format!("user/{}", ask.name),
        outcome: "ok".into(),
    })));
    // The profile first: credentials that do not count harm nobody, an operator without any would have lost the old.
    profile.place()?;
    let committed = store.commit(Expected { at: revision, read: decision.read }, changes).await;
    match committed {
        Ok(_) => {
            profile.keep();
            parents.keep();
            Ok(())
        }
        Err(failed) => Err(match failed {
            CommitError::Failed(problem) => problem,
            CommitError::Conflict(_) => {
                Problem::new(codes::CONFLICT, "the store was changed meanwhile").fix("try again")
            }
        }),
    }
}

fn no_store(path: &Path, why: std::io::Error) -> Problem {
    Problem::new(codes::STORE_FAILED, format!("there is no store in {}", path.display()))
        .because(why)
        .fix("name the configuration of the master with --config")
}

/// Opens the data in a thread that root has become its owner in, as have the threads that the store starts there: root
/// opens nothing whose names the owner could make lead elsewhere, and what is written is the owner's.
fn open_as(uid: u32, gid: u32, config: &Config) -> Result<(Ca, Arc<dyn Store>), Problem> {
    let open = || {
        if geteuid().is_root() && uid != 0 {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            set_thread_groups(&[])
                .and_then(|()| set_thread_res_gid(gid, gid, gid))
                .and_then(|()| set_thread_res_uid(uid, uid, uid))
                .map_err(|e| {
                    Problem::new(codes::KEY_FILE, "cannot take on the rights of the data's owner")
                        .because(e)
                        .fix("run it as the user that the master's data belongs to")
                })?;
        }
        let ca = Ca::load(&config.data.join("ca"))?;
        let folder = config.data.join("store");
        folder.metadata().map_err(|e| no_store(&folder, e))?;
        let store = store::open(&folder, config.store).map_err(|problem| {
            problem.fix("stop the master while this runs (`systemctl stop plat-master`), and start it after")
        })?;
        Ok((ca, store))
    };
    let opened = std::thread::scope(|scope| scope.spawn(open).join());
    opened.unwrap_or_else(|_| Err(Problem::new(codes::INTERNAL, "opening the data ended early")))
}
