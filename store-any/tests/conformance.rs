//! Stores that a URL has opened keep the contract: the wiring of clock, keys and namespace.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use sessionkit::{Clock, Key, Keyring, ManualClock, Result, SessionStore, SystemClock};
use sessionkit_any::Opener;
use sessionkit_conformance::Harness;

/// Opens `memory:` with the kit's namespaces.
struct Memory {
    clock: Arc<ManualClock>,
    /// A process that has a namespace open keeps it.
    kept: Mutex<HashMap<String, Arc<dyn SessionStore>>>,
    /// The kit's namespaces, apart from those of other tests of this process.
    prefix: String,
}

impl Memory {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        Self {
            prefix: format!("{:p}", Arc::as_ptr(&clock)),
            clock,
            kept: Mutex::default(),
        }
    }
}

#[async_trait]
impl Harness for Memory {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        let store = Opener::new()
            .clock(self.clock.clone())
            .namespace(format!("{}{namespace}", self.prefix))
            .open("memory:")
            .await?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(namespace.to_owned(), store.clone());
        Ok(store)
    }

    async fn destroy(&self, namespace: &str) -> Result<()> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.remove(namespace);
        Ok(())
    }

    fn clock(&self) -> Option<Arc<ManualClock>> {
        Some(Arc::clone(&self.clock))
    }
}

/// Opens `cookie:` with a keyring for each namespace.
struct Cookie {
    clock: Arc<ManualClock>,
    keys: Mutex<HashMap<String, Keyring>>,
}

impl Cookie {
    fn new() -> Self {
        Self {
            clock: Arc::new(ManualClock::new(SystemClock.now())),
            keys: Mutex::default(),
        }
    }

    fn keys(&self, namespace: &str) -> Result<Keyring> {
        let new = Keyring::new([Key::generate()?])?;
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(keys.entry(namespace.to_owned()).or_insert(new).clone())
    }
}

#[async_trait]
impl Harness for Cookie {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        Opener::new()
            .clock(self.clock.clone())
            .keyring(self.keys(namespace)?)
            .open("cookie:")
            .await
    }

    async fn destroy(&self, _namespace: &str) -> Result<()> {
        Ok(())
    }

    fn clock(&self) -> Option<Arc<ManualClock>> {
        Some(Arc::clone(&self.clock))
    }

    fn keyring(&self, namespace: &str) -> Option<Keyring> {
        self.keys(namespace).ok()
    }
}

mod memory {
    use super::Memory;

    sessionkit_conformance::suite!(Memory::new());
}

mod cookie {
    use super::Cookie;

    sessionkit_conformance::suite!(Cookie::new());
}
