//! Harnesses for URLs.

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use sessionkit::{
    Clock, Error, ErrorKind, Key, Keyring, ManualClock, Result, SessionStore, SystemClock,
};
use sessionkit_conformance::{
    Harness, MakeHarness, MemoryHarness,
    broken::{BUGS, BrokenHarness},
};
use sessionkit_cookie::CookieStore;

/// A store to run the cases against.
pub(crate) struct Target {
    /// The URL without a password.
    pub(crate) name: String,
    pub(crate) make: MakeHarness,
}

impl Target {
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
        let make: MakeHarness = match (scheme, rest) {
            ("memory", "") => made(|| Ok(MemoryHarness::new())),
            ("cookie", "") => made(|| Ok(CookieHarness::new())),
            ("broken", bug) => {
                BrokenHarness::new(bug)?;
                let bug = bug.to_owned();
                made(move || BrokenHarness::new(&bug))
            }
            _ => {
                let text = format!("no store opens {:?}", redacted(url));
                return Err(Error::new(ErrorKind::InvalidConfig, text));
            }
        };
        let name = redacted(url);
        Ok(Self { name, make })
    }
}

fn made<H: Harness>(make: impl Fn() -> Result<H> + Send + Sync + 'static) -> MakeHarness {
    Arc::new(move || {
        let harness = make();
        Box::pin(async move { harness.map(|harness| Arc::new(harness) as Arc<dyn Harness>) })
    })
}

/// The URL with stars for a password.
fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.into();
    };
    match rest.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{host}")
        }
        None => url.into(),
    }
}

/// The names of the bugs, for people.
pub(crate) fn bugs() -> String {
    let mut text = String::new();
    for bug in BUGS {
        let (name, cases) = (bug.name, bug.cases.join(" "));
        writeln!(text, "broken:{name} (caught by {cases})").expect("a string takes every text");
    }
    text
}

/// Cookies, with a keyring for each namespace.
struct CookieHarness {
    clock: Arc<ManualClock>,
    keyrings: Mutex<HashMap<String, Keyring>>,
}

impl CookieHarness {
    fn new() -> Self {
        Self {
            clock: Arc::new(ManualClock::new(SystemClock.now())),
            keyrings: Mutex::default(),
        }
    }

    fn keyring_of(&self, namespace: &str) -> Result<Keyring> {
        let mut keyrings = self.keyrings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keyring) = keyrings.get(namespace) {
            return Ok(keyring.clone());
        }
        let keyring = Keyring::new([Key::generate()?])?;
        keyrings.insert(namespace.into(), keyring.clone());
        Ok(keyring)
    }
}

#[async_trait]
impl Harness for CookieHarness {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        let store = CookieStore::new(self.keyring_of(namespace)?);
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        Ok(Arc::new(store.with_clock(clock)))
    }

    async fn destroy(&self, namespace: &str) -> Result<()> {
        let mut keyrings = self.keyrings.lock().unwrap_or_else(PoisonError::into_inner);
        keyrings.remove(namespace);
        Ok(())
    }

    fn clock(&self) -> Option<Arc<ManualClock>> {
        Some(Arc::clone(&self.clock))
    }

    fn keyring(&self, namespace: &str) -> Option<Keyring> {
        self.keyring_of(namespace).ok()
    }
}
