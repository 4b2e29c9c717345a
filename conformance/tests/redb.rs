//! The store of the tutorial keeps the contract.

#[path = "../examples/redb_store/store.rs"]
mod store;

use std::sync::Arc;

use redb::{Database, TableHandle, backends::FileBackend};
use sessionkit::{Clock, ErrorKind, ManualClock, Result, SessionStore, SystemClock};
use sessionkit_conformance::Harness;
use store::RedbStore;

struct Redb {
    database: Arc<Database>,
    clock: Arc<ManualClock>,
}

impl Redb {
    fn new() -> Self {
        let file = tempfile::tempfile().expect("a temporary file");
        let file = FileBackend::new(file).expect("a new file");
        let database = Database::builder().create_with_backend(file);
        Self {
            database: Arc::new(database.expect("a new database")),
            clock: Arc::new(ManualClock::new(SystemClock.now())),
        }
    }

    fn drop_table(&self, name: &str) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        let found = transaction
            .list_tables()?
            .find(|table| table.name() == name);
        if let Some(table) = found {
            transaction.delete_table(table)?;
        }
        Ok(transaction.commit()?)
    }
}

#[async_trait::async_trait]
impl Harness for Redb {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        if namespace.is_empty() {
            // redb panics at a table without a name.
            return Err(ErrorKind::InvalidConfig.into());
        }
        Ok(Arc::new(RedbStore {
            database: self.database.clone(),
            table: namespace.into(),
            clock: self.clock.clone(),
        }))
    }

    async fn destroy(&self, namespace: &str) -> Result<()> {
        let dropped = self.drop_table(namespace);
        dropped.map_err(|_| ErrorKind::Unavailable.into())
    }

    fn clock(&self) -> Option<Arc<ManualClock>> {
        Some(self.clock.clone())
    }
}

sessionkit_conformance::suite!(Redb::new());
