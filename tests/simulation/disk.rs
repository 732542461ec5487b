//! What the agents keep on their disks, as it would be found there after a crash at this moment.

use plat_model::id::NodeId;
use plat_model::node::NodeDesired;
use plat_tests::invariants;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files that an agent reads when it starts, besides its keys.
const FILES: [&str; 3] = ["desired", "enrolled", "outbox"];

/// The disks of all agents; a file is read when it has changed.
#[derive(Default)]
pub struct Disks {
    seen: BTreeMap<PathBuf, (u64, u64, i64)>,
    held: BTreeMap<NodeId, Arc<NodeDesired>>,
    changes: u64,
}

impl Disks {
    /// Looks at a node's folder.
    ///
    /// # Errors
    /// The file that its agent could not start with.
    pub fn look(&mut self, node: &NodeId, folder: &Path) -> Result<(), String> {
        for name in FILES {
            let path = folder.join(name);
            let Ok(is) = fs::metadata(&path) else { continue };
            // One that is replaced is another file, one that is appended to is longer.
            let is = (is.ino(), is.len(), is.mtime_nsec());
            if self.seen.insert(path.clone(), is) == Some(is) {
                continue;
            }
            self.changes += 1;
            let text = fs::read_to_string(&path).map_err(|why| format!("{}: {why}", path.display()))?;
            invariants::a_file_says_its_version(name, &text).map_err(|why| format!("{node}: {why}"))?;
            if name == "desired" {
                let body = text.split_once('\n').map_or("", |(_, body)| body);
                let held = serde_json::from_str(body).map_err(|why| format!("{node}: {name}: {why}"))?;
                self.held.insert(node.clone(), Arc::new(held));
            }
        }
        Ok(())
    }

    /// How often a file has been found to be another.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    pub fn held(&self) -> BTreeMap<NodeId, Arc<NodeDesired>> {
        self.held.clone()
    }
}
