//! Whose instance has said something new: each partition once, however often, until it has been looked at.

use plat_model::id::PartitionName;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

#[derive(Default)]
pub struct Spoken {
    names: Mutex<BTreeSet<PartitionName>>,
    said: Notify,
}

impl Spoken {
    pub fn say(&self, partition: &PartitionName) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(partition.clone());
        self.said.notify_one();
    }

    /// Waits for one. For one who listens: nothing is lost when this is dropped.
    pub async fn next(&self) -> PartitionName {
        loop {
            if let Some(name) = self.names.lock().unwrap_or_else(PoisonError::into_inner).pop_first() {
                return name;
            }
            self.said.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn who_speaks_often_is_heard_once() {
        let spoken = Spoken::default();
        let name = |name: &str| PartitionName::parse(name).unwrap();
        (0..1000).for_each(|_| spoken.say(&name("p1")));
        spoken.say(&name("p0"));
        assert_eq!([spoken.next().await, spoken.next().await], [name("p0"), name("p1")]);
        assert_eq!(spoken.next().now_or_never(), None);
        spoken.say(&name("p1"));
        assert_eq!(spoken.next().await, name("p1"));
    }
}
