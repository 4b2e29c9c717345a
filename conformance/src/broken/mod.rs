//! Stores that are wrong in one place each, and that the kit has to catch.
//!
//! A case that never failed proves nothing. [`BrokenHarness`] opens a complete store, with every
//! hook a harness can have; told the name of one of [`BUGS`] it opens the same store with that bug.
//! The command opens them with the URL `broken:NAME`.

mod client;
mod codec;
mod index;
mod store;
mod table;
mod wire;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ops::Bound,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use sessionkit::{
    Clock, CookieOptions, Entropy, Error, ErrorKind, Key, Keyring, ManualClock, Record, Result,
    SessionConfig, SessionManager, SessionManagerBuilder, SessionStore, StoreKey, Subject,
    SubjectSession, Timestamp, Token,
};

pub use table::{BUGS, Bug};

use self::{
    client::SealedStore,
    codec::{decode, encode},
    store::{BrokenStore, Disk, lock},
};
use crate::{Fault, Golden, Harness, RawEntry, harness::START};

/// A harness of the store of this module.
#[derive(Debug)]
pub struct BrokenHarness(Arc<Shared>);

/// The backend, and everything else that the handles of one harness have in common.
#[derive(Debug)]
struct Shared {
    bug: &'static str,
    client: bool,
    deadline: Duration,
    clock: Arc<ManualClock>,
    disk: Mutex<Disk>,
    fault: Mutex<Fault>,
    /// Namespaces whose connection was closed.
    closed: Mutex<HashSet<String>>,
    opened: Mutex<HashMap<String, usize>>,
    planted: Mutex<HashSet<String>>,
    /// What the odd handles have seen last.
    lagging: Mutex<HashMap<Vec<u8>, Record>>,
    indexed: Mutex<BTreeSet<Vec<u8>>>,
    former: Mutex<Vec<(Subject, Vec<u8>)>>,
    seen: Mutex<HashMap<Subject, usize>>,
    /// The last whole list of a subject.
    remembered: Mutex<HashMap<Subject, Vec<SubjectSession>>>,
    /// The expiries that records were created with, and the latest that they had.
    expiries: Mutex<HashMap<Vec<u8>, [Timestamp; 2]>>,
    /// The tokens that records were created with.
    tokens: Mutex<HashMap<Vec<u8>, Token>>,
    /// What the last call was about.
    last: Mutex<Option<Token>>,
    keyrings: Mutex<HashMap<String, Keyring>>,
    /// Keys that a call holds a lock for.
    locked: Mutex<HashSet<Vec<u8>>>,
    /// The first key that begins in this way.
    namesakes: Mutex<HashMap<String, String>>,
    /// Records that a sweep has put aside.
    aside: Mutex<HashMap<Vec<u8>, Record>>,
    /// The latest time that was told.
    latest: Mutex<Timestamp>,
}

impl Shared {
    fn fault(&self) -> Fault {
        *lock(&self.fault)
    }

    fn take_closed(&self, namespace: &str) -> bool {
        lock(&self.closed).remove(namespace)
    }
}

impl BrokenHarness {
    /// A harness of the store with this bug, or of the correct store: the server-side one for `""`,
    /// the client-side one for `"client"`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when no bug has that name.
    pub fn new(name: &str) -> Result<Self> {
        let (bug, client) = match name {
            "" => ("", false),
            "client" => ("", true),
            name => {
                let bug = BUGS.iter().find(|bug| bug.name == name).ok_or_else(|| {
                    Error::new(
                        ErrorKind::InvalidConfig,
                        format!("there is no bug {name:?}"),
                    )
                })?;
                (bug.name, bug.client)
            }
        };
        Ok(Self(Arc::new(Shared {
            bug,
            client,
            deadline: Duration::from_millis(500),
            clock: Arc::new(ManualClock::new(START)),
            disk: Mutex::default(),
            fault: Mutex::new(Fault::None),
            closed: Mutex::default(),
            opened: Mutex::default(),
            planted: Mutex::default(),
            lagging: Mutex::default(),
            indexed: Mutex::default(),
            former: Mutex::default(),
            seen: Mutex::default(),
            remembered: Mutex::default(),
            expiries: Mutex::default(),
            tokens: Mutex::default(),
            last: Mutex::default(),
            keyrings: Mutex::default(),
            locked: Mutex::default(),
            namesakes: Mutex::default(),
            aside: Mutex::default(),
            latest: Mutex::new(Timestamp::MIN),
        })))
    }

    /// What the backend holds for a namespace, or under one key of it, whatever fault is set: the
    /// keys in hexadecimal digits, and the records, or `None` where one cannot be read.
    #[must_use]
    pub fn look(&self, namespace: &str, key: Option<&StoreKey>) -> Vec<(String, Option<Record>)> {
        let mut name = Self::prefix(namespace);
        let prefix = name.len();
        if let Some(key) = key {
            name.extend_from_slice(key.to_hex().as_bytes());
        }
        entries(&lock(&self.0.disk), &name)
            .into_iter()
            .map(|entry| {
                let key = String::from_utf8_lossy(&entry.name[prefix..]).into_owned();
                (key, decode(&entry.value).ok())
            })
            .collect()
    }

    fn has(&self, bug: &str) -> bool {
        self.0.bug == bug
    }

    fn keyring_of(&self, namespace: &str) -> Option<Keyring> {
        if !self.0.client {
            return None;
        }
        let everybody = self.has("sealed-for-everybody");
        let name = if everybody { "" } else { namespace };
        let mut keyrings = lock(&self.0.keyrings);
        if !keyrings.contains_key(name) {
            let keyring = Keyring::new([Key::generate().ok()?]).ok()?;
            keyrings.insert(name.into(), keyring);
        }
        keyrings.get(name).cloned()
    }

    fn prefix(namespace: &str) -> Vec<u8> {
        format!("{namespace}/").into_bytes()
    }
}

#[async_trait]
impl Harness for BrokenHarness {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let valid = (1..=40).contains(&namespace.len()) && namespace.bytes().all(valid);
        match self.0.bug {
            "namespace-as-pattern" => {}
            "bad-namespace-is-unavailable" if !valid => return Err(ErrorKind::Unavailable.into()),
            "bad-namespace-panics" => assert!(valid, "no such table"),
            _ if !valid => return Err(ErrorKind::InvalidConfig.into()),
            _ => {}
        }
        match self.0.fault() {
            Fault::Down | Fault::Vanished if self.has("open-waits-for-ever") => {
                std::future::pending().await
            }
            Fault::Hang if self.has("open-hangs") => std::future::pending().await,
            Fault::Down | Fault::Vanished => return Err(ErrorKind::Unavailable.into()),
            _ => {}
        }
        let handles = {
            let mut opened = lock(&self.0.opened);
            let handles = opened.entry(namespace.into()).or_default();
            *handles += 1;
            *handles
        };
        if self.0.client {
            let keyring = self.keyring_of(namespace).ok_or(ErrorKind::InvalidConfig)?;
            return Ok(Arc::new(SealedStore::new(Arc::clone(&self.0), keyring)));
        }
        if self.has("open-empties") {
            lock(&self.0.disk).retain(|key, _| !key.starts_with(&Self::prefix(namespace)));
        }
        let store = BrokenStore::new(Arc::clone(&self.0), namespace, handles % 2 == 0);
        let look = || store.disk().clone();
        if let Some(mut found) = store.split("opening", look).await {
            // As what brings the records of an older version up to date.
            found.retain(|key, _| key.starts_with(&Self::prefix(namespace)));
            store.disk().append(&mut found);
        }
        Ok(Arc::new(store))
    }

    async fn destroy(&self, namespace: &str) -> Result<()> {
        if !self.has("destroy-leaves-records") {
            lock(&self.0.disk).retain(|key, _| !key.starts_with(&Self::prefix(namespace)));
        }
        Ok(())
    }

    fn clock(&self) -> Option<Arc<ManualClock>> {
        Some(Arc::clone(&self.0.clock))
    }

    fn deadline(&self) -> Duration {
        self.0.deadline
    }

    fn keyring(&self, namespace: &str) -> Option<Keyring> {
        match self.has("keys-are-copied") {
            true => self.keyring_of(&format!("copy of {namespace}")),
            false => self.keyring_of(namespace),
        }
    }

    fn make_token(&self, entropy: &dyn Entropy, cookie: &sessionkit::CookieName) -> Result<Token> {
        let token = Token::random(entropy, cookie);
        match self.0.bug {
            "tokens-without-entropy" => {
                Ok(token.unwrap_or_else(|_| Token::from_bytes(vec![4; 32], cookie)))
            }
            "tokens-are-short" => {
                token.map(|token| Token::from_bytes(token.expose()[..8].to_vec(), cookie))
            }
            "tokens-repeat" => token.map(|token| {
                let first = vec![token.expose()[0]; 16];
                Token::from_bytes([first, vec![7; 16]].concat(), cookie)
            }),
            _ => token,
        }
    }

    fn manager(&self, mut config: SessionConfig, keyring: Keyring) -> SessionManagerBuilder {
        match self.0.bug {
            "data-are-readable-at-rest" => config = config.insecure_readable_at_rest(),
            "sessions-have-no-end" => {
                config = config.absolute_lifetime(Duration::from_secs(1 << 26))
            }
            "cookies-are-chunked" => {
                let cookie = CookieOptions::default().max_chunks(3);
                config = config.cookie(cookie);
            }
            _ => {}
        }
        let keyring = match self.has("keys-are-never-removed") {
            true => Key::generate()
                .and_then(|key| Keyring::new([key]))
                .unwrap_or(keyring),
            false => keyring,
        };
        SessionManager::builder(keyring).session("session", config)
    }

    async fn raw_dump(&self, namespace: &str) -> Result<Vec<RawEntry>> {
        if self.0.client {
            return Err(ErrorKind::Unsupported.into());
        }
        Ok(entries(&lock(&self.0.disk), &Self::prefix(namespace)))
    }

    async fn raw_write(&self, _namespace: &str, entry: &RawEntry) -> Result<()> {
        if self.0.client {
            return Err(ErrorKind::Unsupported.into());
        }
        lock(&self.0.disk).insert(entry.name.clone(), entry.value.clone());
        Ok(())
    }

    async fn foreign(&self, namespace: &str) -> Result<Vec<RawEntry>> {
        if self.0.client {
            return Err(ErrorKind::Unsupported.into());
        }
        let mut disk = lock(&self.0.disk);
        if lock(&self.0.planted).insert(namespace.into()) {
            disk.insert(b"etc/passwd".to_vec(), b"root".to_vec());
            disk.insert(
                format!("foreign/{namespace}").into_bytes(),
                b"not ours".to_vec(),
            );
        }
        let named = |name: &[u8]| !name.starts_with(&Self::prefix(namespace));
        let all = entries(&disk, b"");
        Ok(all.into_iter().filter(|entry| named(&entry.name)).collect())
    }

    async fn golden(&self, namespace: &str) -> Result<Vec<Golden>> {
        if self.0.client {
            return Err(ErrorKind::Unsupported.into());
        }
        let cookie = sessionkit::CookieName::new("__Host-id")?;
        let store = BrokenStore::new(Arc::clone(&self.0), namespace, true);
        let (old, newer) = (
            Token::random(&sessionkit::OsEntropy, &cookie)?,
            Token::random(&sessionkit::OsEntropy, &cookie)?,
        );
        let record = Record {
            data: "golden".into(),
            revision: sessionkit::Revision::from_bits(7),
            created_at: self.0.clock.now(),
            expires_at: self.0.clock.now() + Duration::from_secs(3600),
            subject: None,
            label: sessionkit::Label::default(),
        };
        let mut bytes = encode(&record);
        lock(&self.0.disk).insert(store.key(&old), bytes.clone());
        bytes[0] = 2;
        lock(&self.0.disk).insert(store.key(&newer), bytes);
        Ok(vec![
            Golden {
                token: old,
                record: Some(record),
            },
            Golden {
                token: newer,
                record: None,
            },
        ])
    }

    async fn fault(&self, fault: Fault) -> Result<()> {
        if self.0.client {
            return Err(ErrorKind::Unsupported.into());
        }
        match fault {
            Fault::CloseConnections => {
                *lock(&self.0.closed) = lock(&self.0.opened).keys().cloned().collect()
            }
            Fault::Crash if self.has("writes-are-lost-in-a-crash") => lock(&self.0.disk).clear(),
            Fault::Crash => {}
            fault => *lock(&self.0.fault) = fault,
        }
        Ok(())
    }

    fn canary(&self) -> &'static str {
        match self.has("the-canary-is-alive") {
            true => "",
            false => "delete-does-nothing",
        }
    }
}

/// A record as the stores of this module write it, sealed by nobody.
pub(crate) fn plain(record: &Record) -> Vec<u8> {
    encode(record)
}

fn entries(disk: &Disk, prefix: &[u8]) -> Vec<RawEntry> {
    disk.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
        .take_while(|(name, _)| name.starts_with(prefix))
        .map(|(name, value)| RawEntry {
            name: name.clone(),
            value: value.clone(),
        })
        .collect()
}
