//! Harnesses for URLs.

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use sessionkit::{Clock, ErrorKind, Key, Keyring, ManualClock, Result, SessionStore, Timestamp};
use sessionkit_any::Opener;
use sessionkit_conformance::{
    Harness, MakeHarness,
    broken::{BUGS, BrokenHarness},
};

/// A store to run the cases against.
pub(crate) struct Target {
    /// The URL without a password.
    pub(crate) name: String,
    pub(crate) make: MakeHarness,
}

impl Target {
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let name = redacted(url);
        let make: MakeHarness = match url.strip_prefix("broken:") {
            Some(bug) => {
                BrokenHarness::new(bug)?;
                let bug = bug.to_owned();
                made(move || BrokenHarness::new(&bug))
            }
            None => {
                let url = url.to_owned();
                made(move || Ok(UrlHarness::new(&url)))
            }
        };
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

/// The stores that `sessionkit-any` opens.
struct UrlHarness {
    url: String,
    clock: Arc<ManualClock>,
    namespaces: Mutex<HashMap<String, Arc<Namespace>>>,
}

/// What is known of a namespace that was opened.
struct Namespace {
    keyring: Keyring,
    /// The store of a memory that ends with its last handle.
    memory: Mutex<Option<Arc<dyn SessionStore>>>,
}

impl UrlHarness {
    fn new(url: &str) -> Self {
        Self {
            url: url.into(),
            // In the future, where no other clock agrees by chance.
            clock: Arc::new(ManualClock::new(Timestamp::from_millis(1_900_000_000_123))),
            namespaces: Mutex::default(),
        }
    }

    fn namespace(&self, name: &str) -> Result<Arc<Namespace>> {
        let mut namespaces = lock(&self.namespaces);
        if let Some(namespace) = namespaces.get(name) {
            return Ok(Arc::clone(namespace));
        }
        let namespace = Arc::new(Namespace {
            keyring: Keyring::scoped(name, [Key::generate()?])?,
            memory: Mutex::default(),
        });
        namespaces.insert(name.into(), Arc::clone(&namespace));
        Ok(namespace)
    }
}

#[async_trait]
impl Harness for UrlHarness {
    async fn open(&self, name: &str) -> Result<Arc<dyn SessionStore>> {
        let namespace = self.namespace(name)?;
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let opener = Opener::new()
            .clock(clock)
            .keyring(namespace.keyring.clone());
        // Cookies have no namespaces but those of their keys.
        if self.url.starts_with("cookie:") {
            return opener.open(&self.url).await;
        }
        let store = opener.namespace(name).open(&self.url).await?;
        if self.url.starts_with("memory:") {
            *lock(&namespace.memory) = Some(Arc::clone(&store));
        }
        Ok(store)
    }

    async fn destroy(&self, name: &str) -> Result<()> {
        lock(&self.namespaces).remove(name);
        if self.url.starts_with("cookie:") {
            return Ok(());
        }
        match Opener::new().namespace(name).destroy(&self.url).await {
            // A name that is refused was never opened.
            Err(error) if error.kind() == ErrorKind::InvalidConfig => Ok(()),
            destroyed => destroyed,
        }
    }

    fn clock(&self) -> Option<Arc<ManualClock>> {
        Some(Arc::clone(&self.clock))
    }

    fn keyring(&self, name: &str) -> Option<Keyring> {
        let cookies = self.url.starts_with("cookie:");
        cookies.then(|| {
            self.namespace(name)
                .ok()
                .map(|namespace| namespace.keyring.clone())
        })?
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
