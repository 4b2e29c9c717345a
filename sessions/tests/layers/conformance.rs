//! The whole contract again, through each layer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use sessionkit::{
    Clock, ManualClock, MemoryStore, Result, SessionStore, SystemClock,
    layers::{Migrate, NearCache},
};
use sessionkit_conformance::Harness;

type Stores = (Arc<MemoryStore>, Arc<MemoryStore>);
type Wrap = fn(Stores, &Arc<ManualClock>) -> Result<Arc<dyn SessionStore>>;

/// Each namespace has two memory stores, of which most layers use one.
struct LayerHarness {
    clock: Arc<ManualClock>,
    wrap: Wrap,
    namespaces: Mutex<HashMap<String, Stores>>,
}

impl LayerHarness {
    fn new(wrap: Wrap) -> Self {
        Self {
            clock: Arc::new(ManualClock::new(SystemClock.now())),
            wrap,
            namespaces: Mutex::default(),
        }
    }
}

#[async_trait]
impl Harness for LayerHarness {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        let store = || Arc::new(MemoryStore::new().with_clock(self.clock.clone()));
        let stores = {
            let mut namespaces = self
                .namespaces
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let stores = namespaces.entry(namespace.into());
            stores.or_insert_with(|| (store(), store())).clone()
        };
        (self.wrap)(stores, &self.clock)
    }

    async fn destroy(&self, namespace: &str) -> Result<()> {
        let mut namespaces = self
            .namespaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        namespaces.remove(namespace);
        Ok(())
    }

    fn clock(&self) -> Option<Arc<ManualClock>> {
        Some(Arc::clone(&self.clock))
    }
}

fn cached((store, _): Stores, clock: &Arc<ManualClock>) -> Result<Arc<dyn SessionStore>> {
    let store = NearCache::new(store, Duration::from_millis(200));
    Ok(Arc::new(store.with_clock(clock.clone())))
}

fn migrating((old, new): Stores, _: &Arc<ManualClock>) -> Result<Arc<dyn SessionStore>> {
    Ok(Arc::new(Migrate::new(old, new)?))
}

#[cfg(feature = "tokio")]
fn timed((store, _): Stores, _: &Arc<ManualClock>) -> Result<Arc<dyn SessionStore>> {
    Ok(Arc::new(sessionkit::layers::Timeout::new(store)))
}

mod near_cache {
    use super::{LayerHarness, cached};

    sessionkit_conformance::suite!(LayerHarness::new(cached));
}

mod migrate {
    use super::{LayerHarness, migrating};

    sessionkit_conformance::suite!(LayerHarness::new(migrating));
}

#[cfg(feature = "tokio")]
mod timeout {
    use super::{LayerHarness, timed};

    sessionkit_conformance::suite!(LayerHarness::new(timed));
}
