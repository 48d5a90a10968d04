//! User states of a lane, bounded, least recently used first out.

use std::hash::BuildHasherDefault;

use lru::LruCache;
use xxhash_rust::xxh3::Xxh3;

use crate::user::UserState;

/// A cached state.
#[derive(Debug)]
struct Cached {
    state: UserState,
    /// Last batch that touched it: pinned until that one has committed (rule S7).
    last_batch: u64,
    bytes: usize,
}

/// The states a lane holds while their partitions are owned.
#[derive(Debug)]
pub struct StateCache {
    /// Least recently used order; the hasher is fixed, and nothing depends on the map's order.
    states: LruCache<String, Cached, BuildHasherDefault<Xxh3>>,
    bytes: usize,
    max_bytes: usize,
}

impl StateCache {
    /// An empty cache.
    pub fn new(max_bytes: usize) -> StateCache {
        StateCache {
            states: LruCache::unbounded_with_hasher(BuildHasherDefault::default()),
            bytes: 0,
            max_bytes,
        }
    }

    /// Whether the user's state is here.
    pub fn contains(&self, user_id: &str) -> bool {
        self.states.contains(user_id)
    }

    /// The user's state, now the most recently used and pinned until `batch` has committed.
    pub fn touch(&mut self, user_id: &str, batch: u64) -> Option<&mut UserState> {
        let cached = self.states.get_mut(user_id)?;
        cached.last_batch = batch;
        Some(&mut cached.state)
    }

    /// Puts a loaded state in.
    pub fn insert(&mut self, user_id: String, state: UserState, batch: u64) {
        let bytes = user_id.len() + state.approximate_bytes();
        self.bytes += bytes;
        if let Some((_, old)) = self.states.push(user_id, Cached { state, last_batch: batch, bytes }) {
            self.bytes = self.bytes.saturating_sub(old.bytes);
        }
    }

    /// Tells the cache that the user's state has changed its size.
    pub fn resize(&mut self, user_id: &str) {
        if let Some(cached) = self.states.peek_mut(user_id) {
            let bytes = user_id.len() + cached.state.approximate_bytes();
            self.bytes = (self.bytes + bytes).saturating_sub(cached.bytes);
            cached.bytes = bytes;
        }
    }

    /// Lets go of what is over the bound, but of nothing that a batch after `committed` has touched.
    pub fn evict(&mut self, committed: u64) -> usize {
        let mut evicted = 0;
        while self.bytes > self.max_bytes {
            match self.states.peek_lru() {
                Some((_, oldest)) if oldest.last_batch <= committed => {}
                _ => break,
            }
            if let Some((_, gone)) = self.states.pop_lru() {
                self.bytes = self.bytes.saturating_sub(gone.bytes);
                evicted += 1;
            }
        }
        evicted
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.states.clear();
        self.bytes = 0;
    }

    /// Cached users.
    pub fn users(&self) -> usize {
        self.states.len()
    }

    /// Bytes of them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule S7: evicted and reloaded before its write lands, an update would be lost.
    #[test]
    fn what_an_uncommitted_batch_touched_is_pinned() {
        let mut cache = StateCache::new(0);
        cache.insert("ada".into(), UserState::new(), 1);
        cache.insert("bob".into(), UserState::new(), 2);
        assert_eq!(cache.evict(0), 0);
        assert_eq!(cache.evict(1), 1);
        assert!(!cache.contains("ada") && cache.contains("bob"));
        assert_eq!(cache.evict(2), 1);
        assert_eq!((cache.users(), cache.bytes()), (0, 0));
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = StateCache::new(usize::MAX);
        for user in ["ada", "bob", "cyd"] {
            cache.insert(user.into(), UserState::new(), 1);
        }
        assert!(cache.touch("ada", 2).is_some());
        cache.max_bytes = cache.bytes() - 1;
        assert_eq!(cache.evict(2), 1);
        assert!(cache.contains("ada") && !cache.contains("bob"));
    }

    #[test]
    fn bytes_follow_what_is_inserted_and_resized() {
        let mut cache = StateCache::new(usize::MAX);
        cache.insert("ada".into(), UserState::new(), 1);
        let empty = cache.bytes();
        cache.insert("ada".into(), UserState::new(), 1);
        cache.resize("ada");
        assert_eq!(cache.bytes(), empty);
        cache.clear();
        assert_eq!(cache.bytes(), 0);
    }
}
