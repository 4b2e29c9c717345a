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

type Wrap = fn(&Namespace) -> Result<Arc<dyn SessionStore>>;

struct LayerHarness {
    clock: Arc<ManualClock>,
    wrap: Wrap,
    namespaces: Mutex<HashMap<String, Namespace>>,
}

/// Two stores, of which most layers use one, and a cache: two caches would only agree in time.
struct Namespace {
    store: Arc<MemoryStore>,
    new: Arc<MemoryStore>,
    cache: NearCache<Arc<MemoryStore>>,
}

impl Namespace {
    fn new(clock: &Arc<ManualClock>) -> Self {
        let memory = || Arc::new(MemoryStore::new().with_clock(clock.clone()));
        let (store, new) = (memory(), memory());
        let cache = NearCache::new(store.clone(), Duration::from_millis(200));
        Self {
            store,
            new,
            cache: cache.with_clock(clock.clone()),
        }
    }
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
        let mut namespaces = self
            .namespaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let new = || Namespace::new(&self.clock);
        (self.wrap)(namespaces.entry(namespace.into()).or_insert_with(new))
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

fn cached(namespace: &Namespace) -> Result<Arc<dyn SessionStore>> {
    Ok(Arc::new(namespace.cache.clone()))
}

fn migrating(Namespace { store, new, .. }: &Namespace) -> Result<Arc<dyn SessionStore>> {
    Ok(Arc::new(Migrate::new(store.clone(), new.clone())?))
}

#[cfg(feature = "tokio")]
fn timed(namespace: &Namespace) -> Result<Arc<dyn SessionStore>> {
    let store = namespace.store.clone();
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
