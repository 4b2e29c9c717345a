//! The contract once more, with two processes on each directory.

mod harness;
mod remote;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use sessionkit::{
    CookieName, Entropy, Keyring, ManualClock, Result, SessionConfig, SessionManagerBuilder,
    SessionStore, Token,
};
use sessionkit_conformance::{Fault, Golden, Harness, RawEntry};

use harness::FsHarness;
use remote::RemoteStore;

/// Every other handle to a namespace is in the other process.
struct TwoProcesses {
    here: FsHarness,
    opened: Mutex<HashMap<String, usize>>,
}

impl TwoProcesses {
    fn new() -> Self {
        Self {
            here: FsHarness::new(),
            opened: Mutex::default(),
        }
    }

    /// Whether the next handle is in the other process.
    ///
    /// The first one is: the kit itself opens two, so that the first handle of each case is there,
    /// and the second one here.
    fn is_remote(&self, namespace: &str) -> bool {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let count = opened.entry(namespace.to_owned()).or_default();
        *count += 1;
        *count % 2 == 1
    }
}

/// Everything but `open` is as with one process.
#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Harness for TwoProcesses {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        if self.is_remote(namespace) {
            let (root, clock) = (self.here.root(namespace)?, self.here.clock.clone());
            Ok(Arc::new(RemoteStore::open(root, clock).await?))
        } else {
            self.here.open(namespace).await
        }
    }

    async fn destroy(&self, namespace: &str) -> Result<()> {
        self.here.destroy(namespace).await
    }

    fn clock(&self) -> Option<Arc<ManualClock>> {
        self.here.clock()
    }

    fn deadline(&self) -> Duration {
        self.here.deadline()
    }

    fn make_token(&self, entropy: &dyn Entropy, cookie: &CookieName) -> Result<Token> {
        self.here.make_token(entropy, cookie)
    }

    fn manager(&self, config: SessionConfig, keyring: Keyring) -> SessionManagerBuilder {
        self.here.manager(config, keyring)
    }

    fn keyring(&self, namespace: &str) -> Option<Keyring> {
        self.here.keyring(namespace)
    }

    async fn raw_dump(&self, namespace: &str) -> Result<Vec<RawEntry>> {
        self.here.raw_dump(namespace).await
    }

    async fn raw_write(&self, namespace: &str, entry: &RawEntry) -> Result<()> {
        self.here.raw_write(namespace, entry).await
    }

    async fn foreign(&self, namespace: &str) -> Result<Vec<RawEntry>> {
        self.here.foreign(namespace).await
    }

    async fn golden(&self, namespace: &str) -> Result<Vec<Golden>> {
        self.here.golden(namespace).await
    }

    async fn fault(&self, fault: Fault) -> Result<()> {
        self.here.fault(fault).await
    }

    fn canary(&self) -> &'static str {
        self.here.canary()
    }
}

sessionkit_conformance::suite!(TwoProcesses::new());
