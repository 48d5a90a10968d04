//! Which events of a user have been seen: a window of hashed event ids.
//!
//! A producer that sends an event twice (the same event id for the same user) must not cause a second decision. The
//! window is bounded by count and by age and therefore finds duplicates that come within both; it is not the
//! protection against replay after a crash, which the applied position gives without any window.
//!
//! Ids are kept as 64-bit XXH3 hashes: with 256 ids in the window an event is taken for a duplicate by chance once
//! in 7 * 10^16 events. An id costs 16 bytes in memory, a full window 4 KiB.

use std::collections::VecDeque;

use xxhash_rust::xxh3::xxh3_64;

/// Ids kept at most.
pub const MAX_IDS: usize = 256;

/// An id goes when the user's newest event is more than this many milliseconds (7 days) newer than it was when the
/// id came.
pub const MAX_AGE_MS: i64 = 7 * 24 * 60 * 60 * 1000;

/// The event ids seen last, in order of arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DedupWindow {
    hashes: VecDeque<u64>,
    /// The user's newest event time when the id came: so a late event, too, is remembered for the whole age.
    seen_ms: VecDeque<i64>,
}

impl DedupWindow {
    /// Whether the id has been seen within the window.
    pub fn contains(&self, event_id: &str) -> bool {
        let hash = xxh3_64(event_id.as_bytes());
        self.hashes.contains(&hash)
    }

    /// How many ids are kept.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether no id is kept.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Remembers an id that came when the user's newest event time was `newest_ms` (the event itself included).
    pub(super) fn insert(&mut self, event_id: &str, newest_ms: i64) {
        self.push(xxh3_64(event_id.as_bytes()), newest_ms);
        let oldest_ms = newest_ms.saturating_sub(MAX_AGE_MS);
        while self.hashes.len() > MAX_IDS || self.seen_ms.front().is_some_and(|seen| *seen < oldest_ms) {
            self.hashes.pop_front();
            self.seen_ms.pop_front();
        }
    }

    /// Hash and time of each id, in order of arrival.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, i64)> {
        self.hashes.iter().copied().zip(self.seen_ms.iter().copied())
    }

    /// Puts back an id as [`DedupWindow::iter`] gave it.
    pub(super) fn push(&mut self, hash: u64, seen_ms: i64) {
        self.hashes.push_back(hash);
        self.seen_ms.push_back(seen_ms);
    }

    pub(super) fn approximate_bytes(&self) -> usize {
        self.hashes.len().saturating_mul(16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_after_it_came() {
        let mut window = DedupWindow::default();
        assert!(window.is_empty());
        assert!(!window.contains("a"));
        window.insert("a", 0);
        assert!(window.contains("a"));
        assert!(!window.contains("b"));
    }

    #[test]
    fn the_count_is_bounded_and_the_oldest_goes_first() {
        let mut window = DedupWindow::default();
        for n in 0..=MAX_IDS {
            window.insert(&n.to_string(), 0);
        }
        assert_eq!(window.len(), MAX_IDS);
        assert!(!window.contains("0"));
        assert!(window.contains("1"));
        assert_eq!(window.approximate_bytes(), 4096, "as documented");
    }

    #[test]
    fn an_id_is_kept_for_seven_days_of_the_users_time() {
        let mut window = DedupWindow::default();
        window.insert("a", 1000);
        window.insert("b", 1000 + MAX_AGE_MS);
        assert!(window.contains("a"), "exactly seven days old");
        window.insert("c", 1001 + MAX_AGE_MS);
        assert!(!window.contains("a"));
        assert!(window.contains("b"));
    }

    #[test]
    fn extreme_times_do_no_harm() {
        let mut window = DedupWindow::default();
        window.insert("a", i64::MIN);
        window.insert("b", i64::MAX);
        assert!(window.contains("b"));
    }
}
