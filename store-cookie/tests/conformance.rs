//! The contract, as the conformance kit sees it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use sessionkit::{
    Clock, Key, Keyring, ManualClock, MemoryStore, Result, SessionStore, SystemClock,
};
use sessionkit_conformance::Harness;
use sessionkit_cookie::CookieStore;

/// Each namespace has keys of its own, and a list of its own if there are lists.
struct CookieHarness {
    clock: Arc<ManualClock>,
    revocable: bool,
    namespaces: Mutex<HashMap<String, (Keyring, Arc<MemoryStore>)>>,
}

impl CookieHarness {
    fn new() -> Self {
        Self {
            clock: Arc::new(ManualClock::new(SystemClock.now())),
            revocable: false,
            namespaces: Mutex::default(),
        }
    }

    fn revocable() -> Self {
        Self {
            revocable: true,
            ..Self::new()
        }
    }

    fn namespace(&self, namespace: &str) -> Result<(Keyring, Arc<MemoryStore>)> {
        let mut namespaces = self
            .namespaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = namespaces.get(namespace) {
            return Ok(known.clone());
        }
        let list = MemoryStore::new().with_clock(self.clock.clone());
        let new = (Keyring::new([Key::generate()?])?, Arc::new(list));
        namespaces.insert(namespace.to_owned(), new.clone());
        Ok(new)
    }
}

#[async_trait]
impl Harness for CookieHarness {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        let (keyring, list) = self.namespace(namespace)?;
        let store = CookieStore::new(keyring).with_clock(self.clock.clone());
        if self.revocable {
            // Sessions of the kit may last for ever, and so have the entries.
            return Ok(Arc::new(store.with_revocations(list, Duration::MAX)?));
        }
        Ok(Arc::new(store))
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

    fn keyring(&self, namespace: &str) -> Option<Keyring> {
        Some(self.namespace(namespace).ok()?.0)
    }
}

mod sealed {
    use super::CookieHarness;

    sessionkit_conformance::suite!(CookieHarness::new());
}

mod revocable {
    use super::CookieHarness;

    sessionkit_conformance::suite!(CookieHarness::revocable());
}
