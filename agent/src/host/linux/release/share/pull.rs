//! Taking a built release from a store instead of building it: first the offer, and only if it is to be believed, what
//! it offers.

use super::{Accepted, OFFER_MAX, Offer, Wanted, accept, offer_path};
use crate::config::ShareSettings;
use crate::host::linux::disk::{self, Durability, Stored, io_problem, now, random_hex};
use crate::host::linux::release::cache::asking::ask_as;
use crate::host::linux::release::cache::download::{Ask, Ended};
use crate::host::linux::release::cache::store::{OFFER, PARTIAL};
use crate::host::linux::release::cache::{Cache, store};
use crate::host::linux::task::{Answer, Line, Task};
use plat_model::id::Digest;
use plat_model::node::Account;
use plat_model::problem::codes;
use plat_model::{Problem, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long asking for one may take.
const OFFER_LONGEST: Duration = Duration::from_secs(240);

/// Reads an offer; a process that has become nobody asks for it.
#[derive(Serialize, Deserialize)]
pub struct OfferTask {
    pub folder: PathBuf,
    pub from: String,
    pub account: Option<Account>,
    /// As of a fetch.
    pub authorities: Option<PathBuf>,
    pub silence_seconds: u64,
}

impl OfferTask {
    /// `None` if the store has none.
    pub fn perform(&self, line: &Line) -> Result<Option<String>, Problem> {
        let wrong =
            |e: io::Error| io_problem(codes::SOURCE_FETCH, format!("cannot read what {} offers", self.from), &e);
        store::Store::open(&self.folder)?;
        let path = self.folder.join(PARTIAL).join(format!("{OFFER}{}", random_hex(8)?));
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create_new(true).mode(0o600).open(&path).map_err(wrong)?;
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(wrong(e)),
            _ => {}
        }
        let silence = Duration::from_secs(self.silence_seconds);
        let (from, authorities) = (self.from.as_str(), self.authorities.as_deref());
        let ask = Ask { from, tag: None, authorities, spare: 0, most: OFFER_MAX, silence, longest: OFFER_LONGEST };
        match ask_as(self.account.as_ref(), &ask, &file, line, &mut |_| Ok(()))? {
            Ended::Whole => {}
            Ended::Lacks(_) => return Ok(None),
            Ended::Cut(why) | Ended::Refused(why) | Ended::Untrusted(why) | Ended::NoRoom { why, .. } => {
                return Err(wrong(io::Error::other(why)));
            }
        }
        let mut text = String::new();
        file.rewind().and_then(|()| (&file).take(OFFER_MAX).read_to_string(&mut text)).map_err(wrong)?;
        Ok(Some(text))
    }
}

/// An offer that is to be believed, and what of it is remembered once it was taken.
pub struct Found {
    pub offer: Offer,
    seen: Seen,
    path: PathBuf,
}

/// When the newest offers of a release were signed that were taken.
#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Seen {
    version: u32,
    /// By who signed them.
    newest: BTreeMap<String, Timestamp>,
}

impl Found {
    /// Refuses from now on what the same key signed before it. To be called when what it offers is here and checked: one
    /// that cannot be had does not stand in the way of others.
    pub fn note(&self) -> Result<(), Problem> {
        if let Some(folder) = self.path.parent() {
            disk::private_folder(folder)?;
        }
        disk::replace_json(&self.path, &self.seen, Durability::Power)
    }
}

/// What a store offers of a release for this node, if that is to be believed; `None` if nothing.
///
/// # Errors
/// SOURCE_FETCH if the store cannot be asked, SHARE_REFUSED if it is not to be believed.
pub async fn find(
    cache: &Cache,
    share: &ShareSettings,
    releases: &Path,
    release: &Digest,
    state: &Path,
    account: Option<Account>,
) -> Result<Option<Found>, Problem> {
    let platform = plat_source::here()?;
    let platform = platform.as_str();
    let task = Task::Offer(OfferTask {
        folder: cache.folder().to_owned(),
        from: format!("{}/{}", share.url, offer_path(release, platform)),
        account,
        authorities: cache.authorities().map(Path::to_owned),
        silence_seconds: cache.silence().as_secs(),
    });
    let text = match cache.spawner().perform(&task).await? {
        Answer::Told(Some(text)) => text,
        Answer::Told(None) => return Ok(None),
        other => return Err(Problem::new(codes::INTERNAL, format!("asking for an offer answered {other:?}"))),
    };
    let path = state.join(format!("{release}.shared"));
    let mut seen: Seen = match disk::read_json(&path)? {
        Stored::Value(seen) => seen,
        _ => Seen { version: 1, ..Seen::default() },
    };
    let directory = releases.join(release.as_str());
    let (keys, newest) = (&share.keys, &seen.newest);
    let wanted = Wanted { release, platform, directory: &directory, keys, newest, now: now() };
    let Accepted { offer, key } = accept(text.as_bytes(), &wanted)?;
    seen.newest.insert(key, offer.signed);
    Ok(Some(Found { offer, seen, path }))
}
