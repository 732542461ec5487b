//! Which engines there are, and opening a store with one of them.

use super::Store;
use super::folder::Folder;
use super::group::GroupStore;
use super::redb::RedbEngine;
use super::sled::SledEngine;
use plat_model::Problem;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// What keeps the records on disk. The default passes the power-loss test; see the decision record on the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineKind {
    #[default]
    Redb,
    Sled,
}

impl EngineKind {
    pub const ALL: [Self; 2] = [Self::Redb, Self::Sled];

    /// Reads a name as [`EngineKind::name`] gives it.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Redb => "redb",
            Self::Sled => "sled",
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Opens the store in `folder`, or makes one (readable for its owner only). Without a `kind` it is the one that is
/// there, or the default. Reads all records; blocks while it does.
///
/// # Errors
/// [`plat_model::problem::codes::STORE_VERSION`] when a newer version wrote it: nothing has been touched.
/// [`plat_model::problem::codes::STORE_FAILED`] when another process has it, when it holds another engine, is damaged
/// or cannot be read or written.
pub fn open(folder: &Path, kind: Option<EngineKind>) -> Result<Arc<dyn Store>, Problem> {
    let folder = Folder::open(folder, kind)?;
    Ok(match folder.kind {
        EngineKind::Redb => {
            let engine = RedbEngine::open(folder.path())?;
            Arc::new(GroupStore::start(folder, engine)?)
        }
        EngineKind::Sled => {
            let engine = SledEngine::open(folder.path())?;
            Arc::new(GroupStore::start(folder, engine)?)
        }
    })
}
