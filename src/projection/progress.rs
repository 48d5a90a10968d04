//! How far the projection has come, for those who wait for it.

use std::collections::BTreeMap;

use tokio::sync::watch;

/// The next offset per partition: every record below it is stored or passed over. Clones share it.
#[derive(Clone, Debug)]
pub struct Progress {
    next: watch::Sender<BTreeMap<i32, i64>>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { next: watch::Sender::new(BTreeMap::new()) }
    }
}

impl Progress {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next offset of a partition; `None` while no record of it was handled by this process.
    pub fn next_offset(&self, partition: i32) -> Option<i64> {
        self.next.borrow().get(&partition).copied()
    }

    /// The next offset of every partition that has one.
    pub fn next_offsets(&self) -> BTreeMap<i32, i64> {
        self.next.borrow().clone()
    }

    /// Waits until the partition's next offset is at least `offset`. It waits for ever when nothing comes.
    pub async fn reached(&self, partition: i32, offset: i64) {
        let there = |next: &BTreeMap<i32, i64>| next.get(&partition).is_some_and(|next| *next >= offset);
        let mut changes = self.next.subscribe();
        // It fails only when the sender is gone, and we hold it.
        let _ = changes.wait_for(there).await;
    }

    /// Raises next offsets. An older one, from records read again, changes nothing.
    pub(super) fn raise(&self, to: &BTreeMap<i32, i64>) {
        self.next.send_modify(|next| {
            for (partition, offset) in to {
                let known = next.entry(*partition).or_insert(*offset);
                *known = (*known).max(*offset);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back() {
        let progress = Progress::new();
        assert_eq!(progress.next_offset(0), None);
        progress.raise(&BTreeMap::from([(0, 5), (1, 1)]));
        progress.raise(&BTreeMap::from([(0, 3)]));
        assert_eq!(progress.next_offsets(), BTreeMap::from([(0, 5), (1, 1)]));
    }
}
