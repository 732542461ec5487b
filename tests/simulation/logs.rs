//! What the programs of a simulation log.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use tracing::Level;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};

/// Their lines, of this thread.
#[derive(Clone, Default)]
pub struct Logs(Arc<Mutex<Vec<u8>>>);

impl Logs {
    /// Until the guard is dropped, at the level of production.
    pub fn collect(&self) -> DefaultGuard {
        let to = self.clone();
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || to.clone());
        let ours = Targets::new().with_target("plat", Level::INFO);
        tracing::subscriber::set_default(tracing_subscriber::registry().with(lines.with_filter(ours)))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("nobody panics with the log in hand")
    }

    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// What has been logged since it was asked last.
    pub fn take(&self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut *self.lock())).into_owned()
    }
}

impl io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
