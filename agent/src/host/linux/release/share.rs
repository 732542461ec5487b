//! Built releases, shared between nodes. Nobody can know beforehand what a build makes, so there is no digest to check it
//! against; instead a node that built one says with its key which bytes it made of which release, for which kind of
//! machine. Who trusts that key takes them instead of building.
//!
//! A store has `releases/DIGEST/PLATFORM.json`, an offer with its signature, and `sha256/DIGITS`, what is offered: the
//! same form as a mirror has. It is a folder, or a server of one, and nothing in it is believed for being there.

pub mod command;
pub mod key;
pub mod pull;
pub mod push;
mod shelf;

use super::build::Ingredient;
use key::PublicKey;
use plat_model::id::Digest;
use plat_model::problem::codes;
use plat_model::{Problem, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is signed begins with this, so that a signature of something else is none of an offer.
const CONTEXT: &[u8] = b"plat built release 1\n";
/// Longest offer with its signature, in bytes.
pub const OFFER_MAX: u64 = 4 << 20;

/// What a node says it made of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    pub version: u32,
    pub release: Digest,
    pub platform: String,
    /// Where it was made to be: a build may write that down in what it makes.
    pub directory: PathBuf,
    /// Of the archive of what was made.
    pub sha256: String,
    pub signed: Timestamp,
    /// What went into it.
    pub sources: BTreeMap<String, Vec<Ingredient>>,
}

/// An offer as it is kept: exactly the text that was signed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    offer: String,
    key: String,
    signature: String,
}

/// What a node looks for.
pub struct Wanted<'a> {
    pub release: &'a Digest,
    pub platform: &'a str,
    pub directory: &'a Path,
    pub keys: &'a [PublicKey],
    /// Key → when the newest offer was signed that this node has taken of it for this release.
    pub newest: &'a BTreeMap<String, Timestamp>,
    pub now: Timestamp,
}

/// How far the clock of who signs may be ahead of this node's: an offer of the far future would outlast all later ones.
const AHEAD: Duration = Duration::from_secs(600);

/// Where a store has the offer.
pub fn offer_path(release: &Digest, platform: &str) -> String {
    format!("releases/{release}/{platform}.json")
}

/// An offer that is to be believed.
pub struct Accepted {
    pub offer: Offer,
    /// Who signed it.
    pub key: String,
}

/// The offer in `text`, if this node is to believe it.
///
/// # Errors
/// SHARE_REFUSED, with the reason.
pub fn accept(text: &[u8], wanted: &Wanted<'_>) -> Result<Accepted, Problem> {
    let refused = |why: String| {
        Problem::new(codes::SHARE_REFUSED, format!("a shared build of release {} is refused", wanted.release.short()))
            .because(why)
            .fix("the release is built here instead; see who writes to the store")
    };
    let envelope: Envelope = serde_json::from_slice(text).map_err(|_| refused("it cannot be read".into()))?;
    let Some(key) = PublicKey::parse(&envelope.key).ok().filter(|key| wanted.keys.contains(key)) else {
        let shown = plat_model::id::shorten(&envelope.key);
        return Err(refused(format!("it is signed with {shown}, which this node does not trust")));
    };
    if !key.verifies(&signed_text(&envelope.offer), &envelope.signature) {
        return Err(refused("its signature does not fit: it was changed after it was signed".into()));
    }
    let offer: Offer = serde_json::from_str(&envelope.offer).map_err(|_| refused("it cannot be understood".into()))?;
    if offer.version != 1 {
        return Err(refused(format!("it is of version {}", offer.version)));
    }
    if &offer.release != wanted.release {
        return Err(refused(format!("it is of release {}", offer.release.short())));
    }
    if offer.platform != wanted.platform {
        return Err(refused(format!("it is for {}, this is {}", offer.platform, wanted.platform)));
    }
    if offer.directory != wanted.directory {
        let (made, here) = (offer.directory.display(), wanted.directory.display());
        return Err(refused(format!("it was made to be at {made}, and would be at {here}")));
    }
    if offer.signed.since(wanted.now) > AHEAD {
        return Err(refused(format!("it was signed {}, and here it is {}", offer.signed, wanted.now)));
    }
    let key = key.to_string();
    if let Some(newest) = wanted.newest.get(&key).filter(|newest| offer.signed < **newest) {
        return Err(refused(format!("it was signed {}, and one of {newest} has been seen", offer.signed)));
    }
    Ok(Accepted { offer, key })
}

fn signed_text(offer: &str) -> Vec<u8> {
    [CONTEXT, offer.as_bytes()].concat()
}

#[cfg(test)]
mod tests;
