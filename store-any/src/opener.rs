use std::sync::Arc;

use sessionkit::{Clock, Keyring, Result, SessionStore, SystemClock};

use crate::{
    backend,
    url::{Address, Options, invalid},
};

/// Opens the store that a URL names, with the system's clock.
///
/// The front page of this crate lists the URLs.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use sessionkit::ErrorKind;
///
/// let store = sessionkit_any::open("memory:").await.unwrap();
/// assert!(store.subjects().is_some());
///
/// let error = sessionkit_any::open("memory:?max_session=1").await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
/// # }
/// ```
///
/// # Errors
/// [`ErrorKind::InvalidConfig`](sessionkit::ErrorKind::InvalidConfig) when the URL, its scheme or
/// one of its options is not valid, or the store is not compiled in; and the errors of the store.
pub async fn open(url: &str) -> Result<Arc<dyn SessionStore>> {
    Opener::new().open(url).await
}

/// What a store may need that does not stand in its URL.
#[derive(Clone, Debug, Default)]
pub struct Opener {
    clock: Option<Arc<dyn Clock>>,
    keyring: Option<Keyring>,
    namespace: Option<String>,
}

impl Opener {
    /// No keys, no namespace, the system's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the clock that sessions expire by; [`SystemClock`] by default. A store whose server
    /// keeps the time does without.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Sets the keys, which the cookie store needs; none by default. Stores on a server do without.
    #[must_use]
    pub fn keyring(mut self, keyring: Keyring) -> Self {
        self.keyring = Some(keyring);
        self
    }

    /// Sets the namespace; the store's own by default. A URL that sets one too is refused.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Opens the store that a URL names.
    ///
    /// # Errors
    /// As for [`open`](crate::open).
    pub async fn open(&self, url: &str) -> Result<Arc<dyn SessionStore>> {
        backend::open(Address::parse(url)?, self).await
    }

    /// Removes every session of the store that a URL names, with the table, the directory or the
    /// keys they are in: for tests, and for an application that has moved elsewhere. Those of a memory
    /// store end with its last handle. The cookie store refuses: nobody can remove what the clients
    /// have.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> sessionkit::Result<()> {
    /// use sessionkit_any::Opener;
    ///
    /// Opener::new().namespace("trial").destroy("memory:").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`open`](crate::open).
    pub async fn destroy(&self, url: &str) -> Result<()> {
        backend::destroy(Address::parse(url)?, self).await
    }

    /// The clock, if it is not the system's.
    pub(crate) fn injected_clock(&self) -> Option<&Arc<dyn Clock>> {
        self.clock.as_ref()
    }

    /// The clock to open a store with.
    #[cfg_attr(
        not(any(
            feature = "cookie",
            feature = "fs",
            feature = "sqlite",
            feature = "postgres",
            feature = "mysql"
        )),
        expect(dead_code, reason = "the memory store alone does without")
    )]
    pub(crate) fn clock_or_system(&self) -> Arc<dyn Clock> {
        self.clock.clone().unwrap_or_else(|| Arc::new(SystemClock))
    }

    #[cfg_attr(
        not(feature = "cookie"),
        expect(dead_code, reason = "only the cookie store has keys")
    )]
    pub(crate) fn keys(&self) -> Option<&Keyring> {
        self.keyring.as_ref()
    }

    /// The namespace, from here or from the URL.
    pub(crate) fn namespace_in<'a>(&'a self, options: &'a Options) -> Result<Option<&'a str>> {
        match (self.namespace.as_deref(), options.get("namespace")) {
            (Some(_), Some(_)) => Err(invalid(
                "the application sets the namespace, and the store's URL sets one too",
            )),
            (Some(""), None) | (None, Some("")) => {
                Err(invalid("the namespace of the store is empty"))
            }
            (here, there) => Ok(here.or(there)),
        }
    }
}
