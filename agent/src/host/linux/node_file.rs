//! node.json: read again when it was written anew, and told of.

use super::disk::io_problem;
use super::posix::watched;
use crate::host::Event;
use plat_model::Problem;
use plat_model::node::NodeFile;
use plat_model::problem::codes;
use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

/// What tells one writing of a file from another.
type Version = (u64, i64, i64, u64);

pub struct NodeFiles {
    path: PathBuf,
    known: Mutex<Option<(Version, Arc<NodeFile>)>>,
}

impl NodeFiles {
    pub fn new(path: PathBuf) -> Self {
        Self { path, known: Mutex::new(None) }
    }

    /// As it is now.
    pub fn read(&self) -> Result<Arc<NodeFile>, Problem> {
        let wrong = |e: std::io::Error| {
            io_problem(codes::NO_NODE_FILE, format!("cannot read {}", self.path.display()), &e)
                .fix("run `node-format apply` on this machine first")
        };
        let meta = fs::metadata(&self.path).map_err(wrong)?;
        let version = (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file)) = known.as_ref().filter(|(seen, _)| *seen == version) {
            return Ok(file.clone());
        }
        let file = Arc::new(NodeFile::parse(&fs::read_to_string(&self.path).map_err(wrong)?)?);
        *known = Some((version, file.clone()));
        Ok(file)
    }

    /// Sends an event whenever the file is written or replaced, until nobody listens. Within a tokio runtime.
    pub fn watch(&self, events: mpsc::Sender<Event>) -> std::io::Result<()> {
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = self.path.file_name().unwrap_or_default().to_owned();
        let notify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        // The folder: a file that is replaced by a rename is another file.
        add_watch(&notify, folder, WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::DELETE)?;
        let notify = watched(notify)?;
        tokio::spawn(async move {
            loop {
                let mut ready = tokio::select! {
                    ready = notify.readable() => match ready { Ok(ready) => ready, Err(_) => return },
                    () = events.closed() => return,
                };
                let mut ours = false;
                let mut buffer = [MaybeUninit::uninit(); 4096];
                let mut reader = Reader::new(notify.get_ref(), &mut buffer);
                while let Ok(event) = reader.next() {
                    ours |= event.file_name().is_some_and(|file| file.to_bytes() == name.as_encoded_bytes());
                }
                ready.clear_ready();
                if ours && events.send(Event::NodeFile).await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }
}
