//! The memory store outside of its crate, so that a change of it compiles in seconds.

mod memory;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use sessionkit_conformance::{Harness, MakeHarness};

pub use self::memory::MemoryStore;
#[expect(unused_imports, reason = "some are needed by the store's own tests only")]
pub(crate) use sessionkit::{
    Capabilities, Clock, ErrorKind, Label, ManualClock, Record, Result, Revision, SessionStore,
    StoreKey, Subject, SubjectIndex, SubjectSession, SystemClock, Timestamp, Token,
};

pub fn harnesses() -> Vec<MakeHarness> {
    let make: MakeHarness =
        Arc::new(|| Box::pin(async { Ok(Arc::new(Memory::default()) as Arc<dyn Harness>) }));
    vec![make]
}

/// As the `MemoryHarness` of the kit.
struct Memory {
    clock: Arc<ManualClock>,
    stores: Mutex<HashMap<String, Arc<MemoryStore>>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            clock: Arc::new(ManualClock::new(Timestamp::from_millis(1_900_000_000_123))),
            stores: Mutex::default(),
        }
    }
}

#[async_trait]
impl Harness for Memory {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let store = stores.entry(namespace.into()).or_insert_with(|| {
            Arc::new(MemoryStore::new().with_clock(Arc::clone(&self.clock) as Arc<dyn Clock>))
        });
        Ok(Arc::clone(store) as Arc<dyn SessionStore>)
    }

    async fn destroy(&self, namespace: &str) -> Result<()> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        stores.remove(namespace);
        Ok(())
    }

    fn clock(&self) -> Option<Arc<ManualClock>> {
        Some(Arc::clone(&self.clock))
    }
}
