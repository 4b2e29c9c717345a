//! The store of the tutorial keeps the contract.

#[path = "../examples/redb_store/store.rs"]
mod store;

use std::sync::Arc;

use sessionkit::{Clock, ManualClock, Result, SessionStore, SystemClock};
use sessionkit_conformance::Harness;
use store::RedbStore;

struct Redb(RedbStore, Arc<ManualClock>);

impl Redb {
    fn new() -> Self {
        let file = tempfile::tempfile().expect("a temporary file");
        let database = redb::Builder::new().create_file(file);
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let store = RedbStore {
            database: Arc::new(database.expect("a new database")),
            table: String::new(),
            clock: clock.clone(),
        };
        Self(store, clock)
    }
}

#[async_trait::async_trait]
impl Harness for Redb {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        Ok(Arc::new(RedbStore {
            table: namespace.into(),
            ..self.0.clone()
        }))
    }

    async fn destroy(&self, _namespace: &str) -> Result<()> {
        Ok(()) // The whole file goes with the harness.
    }

    fn clock(&self) -> Option<Arc<ManualClock>> {
        Some(self.1.clone())
    }
}

sessionkit_conformance::suite!(Redb::new());
