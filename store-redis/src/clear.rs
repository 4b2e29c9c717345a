//! Removes everything that a store keeps, and nothing else.

use futures_util::future::join_all;
use redis::from_redis_value;
use sessionkit::Result;
use tokio::time::Instant;

use crate::{RedisStore, client::odd, failure::Effect, node::Node, script::Call, store::KEY_LEN};

/// About how many keys the server looks at for one answer.
const BATCH: usize = 1000;

impl RedisStore {
    /// Removes every session of this store's prefix: for tests, and for an application that has
    /// moved elsewhere. Looks at every key of the database, a thousand at a time, and removes what
    /// it finds; a session that begins meanwhile may stay. Calling it again is safe. A database whose
    /// keys cannot be looked at within the deadline takes a store that is opened with a longer one.
    ///
    /// # Errors
    /// Those of the server, and [`Unavailable`](sessionkit::ErrorKind::Unavailable) when the deadline is over. Some of the
    /// sessions may have been removed.
    pub async fn clear(&self) -> Result<()> {
        let deadline = self.client.deadline();
        for node in self.client.nodes(deadline).await? {
            self.clear_node(&node, deadline).await?;
        }
        Ok(())
    }

    async fn clear_node(&self, node: &Node, deadline: Instant) -> Result<()> {
        let mut cursor = b"0".to_vec();
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(self.pattern());
            scan.arg("COUNT").arg(BATCH);
            let answer = node.send(&scan, Effect::Read, deadline).await;
            let answer = answer.map_err(|failure| failure.into_error(Effect::Read))?;
            let (next, keys): (_, Vec<Vec<u8>>) = from_redis_value(answer).map_err(|_| odd())?;
            let ours = keys.iter().filter(|key| self.is_ours(key));
            let removals: Vec<_> = ours.map(|key| Call::new("UNLINK", key)).collect();
            let removals = removals
                .iter()
                .map(|call| self.client.run(call, Effect::Read, deadline));
            for removed in join_all(removals).await {
                removed?;
            }
            cursor = next;
            if cursor == b"0" {
                return Ok(());
            }
        }
    }

    /// What matches every key that begins with the prefix, whose own characters mean themselves.
    fn pattern(&self) -> String {
        let escaped = self.prefix.chars().flat_map(|char| ['\\', char]);
        escaped.chain(['*']).collect()
    }

    fn is_ours(&self, key: &[u8]) -> bool {
        match key.strip_prefix(self.prefix.as_bytes()) {
            Some([b'#', rest @ ..]) => rest.len() == KEY_LEN,
            Some([b'@', ..]) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use sessionkit::StoreKey;

    use crate::RedisOptions;

    #[test]
    fn records_and_indexes_are_ours_and_names_that_only_look_like_them_are_not() {
        let options = RedisOptions::from_url("redis://localhost").unwrap();
        let store = options.open_lazily().unwrap();
        let record = store.record_key(&StoreKey::from_bytes([b'#'; 32]));
        // The server gives it 32 bytes, together with what is its own.
        assert_eq!(record.len(), 28);
        assert!(store.is_ours(&record));
        assert!(store.is_ours(&store.index_key("alice")));
        let longer = [&record[..], b"#"].concat();
        for other in [
            &record[..27],
            &longer,
            b"session",
            b"session!",
            b"sessions#",
        ] {
            assert!(!store.is_ours(other), "{}", other.escape_ascii());
        }
    }
}
