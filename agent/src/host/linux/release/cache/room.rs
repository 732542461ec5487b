//! Room on the cache's disk that fetches wait for: whoever removes what nothing uses is told how much it takes, and they
//! are told when something was removed.

use crate::config::ReleaseSettings;
use crate::host::Event;
use crate::host::linux::release::stored::disk_of;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

pub struct Room {
    folder: PathBuf,
    min_free: u64,
    /// How long nothing may be removed before nobody waits any more.
    patience: Duration,
    events: Option<mpsc::Sender<Event>>,
    asked: Mutex<Vec<u64>>,
    freed: watch::Sender<()>,
}

/// While it is held, room is asked for.
struct Asking<'a>(&'a Room, u64);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = asked.iter().position(|bytes| *bytes == self.1) {
            asked.swap_remove(at);
        }
    }
}

impl Room {
    pub fn new(folder: PathBuf, settings: &ReleaseSettings, events: Option<mpsc::Sender<Event>>) -> Self {
        let (min_free, patience) = (settings.policy.min_free, settings.patience);
        Self { folder, min_free, patience, events, asked: Mutex::default(), freed: watch::Sender::new(()) }
    }

    /// What is waited for, in bytes, beside what stays free.
    pub fn asked(&self) -> Vec<u64> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Something was removed from some disk.
    pub fn freed(&self) {
        self.freed.send_replace(());
    }

    /// Has room made for so many bytes; whether there is.
    pub async fn wait(&self, bytes: u64) -> bool {
        let mut freed = self.freed.subscribe();
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
        let _asking = Asking(self, bytes);
        loop {
            if disk_of(&self.folder).is_ok_and(|(_, free)| free >= self.min_free.saturating_add(bytes)) {
                return true;
            }
            let Some(events) = &self.events else { return false };
            let _ = events.try_send(Event::NoRoom);
            if !matches!(timeout(self.patience, freed.changed()).await, Ok(Ok(()))) {
                return false;
            }
        }
    }
}
