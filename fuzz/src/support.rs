//! What is the same in every run: keys, clock, tokens, and what looks random.

use std::{
    future::Future,
    path::PathBuf,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::FutureExt;
use sessionkit::{
    Clock, CookieName, Entropy, Error, ErrorKind, Key, Keyring, Label, ManualClock, Record, Result,
    Revision, Subject, Timestamp, Token,
};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// The first instant there is: what a mutated record says of its expiry is rarely over.
pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::new(Timestamp::MIN))
}

/// The keys that the seeds were written with.
pub(crate) static KEYRING: LazyLock<Keyring> = LazyLock::new(|| {
    let key = Key::parse("687449ff54dbd66dccee5569f0dfbedfbdbfb297c284998846a9f248af8ae210");
    let key = key.expect("64 digits of random bytes are a key");
    Keyring::new([key]).expect("one key makes a keyring")
});

/// Where files are made that nobody has to find again: in memory where there is room.
pub(crate) fn directory() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    made.expect("the system gives a directory")
}

/// A runtime for stores that need one. Its thread is the caller's, so that a panic comes out.
pub(crate) fn runtime() -> Runtime {
    let built = Builder::new_current_thread().enable_all().build();
    built.expect("the system has what a runtime needs")
}

/// The output of a future that waits for nobody else.
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> T {
    let output = future.now_or_never();
    output.expect("nothing but memory is waited for")
}

/// The bytes 0, 1, 2 and so on.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Entropy for Counter {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        bytes.fill_with(|| self.0.fetch_add(1, Ordering::Relaxed).to_le_bytes()[0]);
        Ok(())
    }
}

/// The first token that [`Counter`] makes.
pub(crate) fn token(cookie: &CookieName) -> Token {
    Token::random(&Counter::default(), cookie).expect("counting does not fail")
}

pub(crate) fn cookie_name() -> CookieName {
    CookieName::new("__Host-id").expect("the default name is a name")
}

pub(crate) fn record(data: &[u8]) -> Record {
    Record {
        data: data.to_vec().into(),
        revision: Revision::from_bits(0x0123_4567_89ab_cdef),
        created_at: Timestamp::MIN,
        expires_at: Timestamp::MAX,
        subject: Some(Subject::new("user-42").expect("seven bytes are a subject")),
        label: Label::new("Firefox").expect("seven bytes are a label"),
    }
}

/// The value of what was decoded, or `None` for what is no value of ours. Any other error would blame
/// the backend for its contents.
pub(crate) fn decoded<T>(read: Result<T>) -> Option<T> {
    read.map_err(|error| assert_kind(&error, ErrorKind::Corrupt))
        .ok()
}

pub(crate) fn assert_kind(error: &Error, kind: ErrorKind) {
    assert_eq!(error.kind(), kind, "{error}");
}
