//! Where the requests of one process that change one session at the same time wait for each other.
//! Nobody waits for another session.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::OwnedMutexGuard;

use crate::StoreKey;

/// The map is cleared of queues that nobody stands in when it has grown by this many.
const PURGE_AFTER: usize = 64;

#[derive(Default)]
pub(crate) struct Queues(Mutex<Map>);

#[derive(Default)]
struct Map {
    queues: HashMap<StoreKey, Weak<tokio::sync::Mutex<()>>>,
    purge_at: usize,
}

impl Queues {
    /// Waits for the others that change the session, at most for as long as a call of a store may
    /// take by default. `None` is not an error: the revision decides, as between processes.
    pub(crate) async fn enter(&self, key: StoreKey) -> Option<OwnedMutexGuard<()>> {
        let turn = self.queue(key).lock_owned();
        #[cfg(feature = "tokio")]
        {
            const LONGEST: std::time::Duration = std::time::Duration::from_secs(5);
            tokio::time::timeout(LONGEST, turn).await.ok()
        }
        #[cfg(not(feature = "tokio"))]
        Some(turn.await)
    }

    fn queue(&self, key: StoreKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.queues.len() >= map.purge_at {
            map.queues.retain(|_, queue| queue.strong_count() > 0);
            map.purge_at = 2 * map.queues.len() + PURGE_AFTER;
        }
        let entry = map.queues.entry(key).or_default();
        entry.upgrade().unwrap_or_else(|| {
            let queue = Arc::default();
            *entry = Arc::downgrade(&queue);
            queue
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn key(number: u8) -> StoreKey {
        StoreKey::from_bytes([number; 32])
    }

    #[tokio::test]
    async fn requests_for_one_session_take_turns_and_others_do_not_wait() {
        let queues = Queues::default();
        let first = queues.enter(key(1)).await;
        assert!(queues.enter(key(1)).now_or_never().is_none());
        assert!(queues.enter(key(2)).now_or_never().is_some());
        drop(first);
        assert!(queues.enter(key(1)).now_or_never().is_some());
    }

    #[test]
    fn queues_that_nobody_stands_in_are_forgotten() {
        let queues = Queues::default();
        for number in 0..100_000_u32 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            queues.queue(StoreKey::from_bytes(bytes));
        }
        assert!(queues.0.lock().unwrap().queues.len() <= 2 * PURGE_AFTER);
    }
}
