//! The store of the tutorial keeps the contract.

#[path = "../examples/redb_store/store.rs"]
mod store;

use std::sync::Arc;

use redb::Database;
use sessionkit::{Clock, ManualClock, Result, SessionStore, SystemClock};
use sessionkit_conformance::Harness;
use store::RedbStore;
use tempfile::TempDir;

struct Redb {
    database: Arc<Database>,
    clock: Arc<ManualClock>,
    /// Removed with the harness.
    _directory: TempDir,
}

impl Redb {
    fn new() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let database = Database::create(directory.path().join("redb")).expect("a new database");
        Self {
            database: Arc::new(database),
            clock: Arc::new(ManualClock::new(SystemClock.now())),
            _directory: directory,
        }
    }
}

#[async_trait::async_trait]
impl Harness for Redb {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        Ok(Arc::new(RedbStore {
            database: self.database.clone(),
            table: namespace.into(),
            clock: self.clock.clone(),
        }))
    }

    /// Every harness has a database of its own, which goes with it.
    async fn destroy(&self, _namespace: &str) -> Result<()> {
        Ok(())
    }

    fn clock(&self) -> Option<Arc<ManualClock>> {
        Some(self.clock.clone())
    }
}

sessionkit_conformance::suite!(Redb::new());
