//! What a failure says to somebody who has only its text.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};
use std::{future::pending, time::Duration};

use async_trait::async_trait;
use sessionkit::{
    Capabilities, CookieOptions, Error, ErrorKind, Keyring, Label, ManualClock, Record, Result,
    Revision, SessionConfig, SessionManager, SessionManagerBuilder, SessionStore, Subject,
    SubjectIndex, Timestamp, Token,
};
use sessionkit_conformance::{
    Fault, Harness, MakeHarness, MemoryHarness, Options, Verdict, broken::BrokenHarness, find_case,
    run_case,
};

type Change = fn(&mut Record);

/// A memory store that returns other records than it was given, or is down for a while.
#[derive(Debug)]
struct Odd {
    inner: Arc<dyn SessionStore>,
    change: Change,
    backend: Arc<Backend>,
}

#[derive(Debug)]
struct Backend {
    fault: Mutex<Fault>,
    /// How many loads fail after the fault is over, before one never ends.
    failing: AtomicUsize,
}

impl Odd {
    fn reach(&self) -> Result<()> {
        match *self.backend.fault.lock().expect("nobody panics with it") {
            Fault::None => Ok(()),
            _ => Err(ErrorKind::Unavailable.into()),
        }
    }
}

#[async_trait]
impl SessionStore for Odd {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        self.reach()?;
        self.inner.create(token, record).await
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        self.reach()?;
        match self.backend.failing.load(Ordering::SeqCst) {
            0 => {}
            1 => pending().await,
            _ => {
                self.backend.failing.fetch_sub(1, Ordering::SeqCst);
                return Err(ErrorKind::Unavailable.into());
            }
        }
        let mut found = self.inner.load(token).await?;
        found.iter_mut().for_each(self.change);
        Ok(found)
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        self.reach()?;
        self.inner.update(token, expected, record).await
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        self.reach()?;
        self.inner.touch(token, expires_at).await
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        self.reach()?;
        self.inner.delete(token, expected).await
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        self.reach()?;
        self.inner.sweep(limit).await
    }

    async fn ping(&self) -> Result<()> {
        self.reach()
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        None
    }
}

struct OddHarness {
    memory: MemoryHarness,
    change: Change,
    backend: Arc<Backend>,
}

impl OddHarness {
    fn make(change: Change) -> MakeHarness {
        Arc::new(move || {
            Box::pin(async move {
                let backend = Arc::new(Backend {
                    fault: Mutex::new(Fault::None),
                    failing: AtomicUsize::new(0),
                });
                let memory = MemoryHarness::new();
                let harness = Self {
                    memory,
                    change,
                    backend,
                };
                Ok(Arc::new(harness) as Arc<dyn Harness>)
            })
        })
    }
}

#[async_trait]
impl Harness for OddHarness {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        Ok(Arc::new(Odd {
            inner: self.memory.open(namespace).await?,
            change: self.change,
            backend: Arc::clone(&self.backend),
        }))
    }

    async fn destroy(&self, namespace: &str) -> Result<()> {
        self.memory.destroy(namespace).await
    }

    fn clock(&self) -> Option<Arc<ManualClock>> {
        self.memory.clock()
    }

    /// Once repaired, the backend fails twice more and then hangs.
    async fn fault(&self, fault: Fault) -> Result<()> {
        let mut present = self.backend.fault.lock().expect("nobody panics with it");
        if *present != Fault::None && fault == Fault::None {
            self.backend.failing.store(3, Ordering::SeqCst);
        }
        *present = fault;
        Ok(())
    }

    /// Cannot be built.
    fn manager(&self, config: SessionConfig, keyring: Keyring) -> SessionManagerBuilder {
        let cookie = CookieOptions::default().path("no path");
        SessionManager::builder(keyring).session("session", config.cookie(cookie))
    }
}

fn failure(id: &str, make: &MakeHarness) -> (String, String) {
    let options = Options {
        watchdog: Duration::from_secs(2),
        ..Options::default()
    };
    let report = run_case(find_case(id).expect("the catalogue has it"), make, &options);
    match report.verdict {
        Verdict::Fail { expected, actual } => (expected, actual),
        verdict => panic!("{id}: {verdict:?}"),
    }
}

#[test]
fn records_that_differ_in_any_field_differ_in_print() {
    let changes: [(&str, Change); 6] = [
        ("data", |record| {
            let mut data = [&b"0123456789abcdefghijklmnopqrstuvwxyz"[..], &record.data].concat();
            data.push(0);
            record.data = data.into();
        }),
        ("revision", |record| {
            record.revision = Revision::from_bits(record.revision.to_bits() ^ 1);
        }),
        ("created_at", |record| {
            record.created_at = record.created_at + Duration::from_millis(1);
        }),
        ("expires_at", |record| {
            record.expires_at = record.expires_at + Duration::from_millis(1);
        }),
        ("subject", |record| {
            record.subject = Some(Subject::new("x").expect("a letter is a subject"));
        }),
        ("label", |record| {
            record.label = Label::new("x").expect("a letter is a label");
        }),
    ];
    for (field, change) in changes {
        // This one shows two records that may be there, and the one that is.
        let (expected, actual) = failure("X01", &OddHarness::make(change));
        assert!(!expected.contains(&actual), "{field}: {expected}; {actual}");
        let (_, actual) = failure("L01", &OddHarness::make(change));
        assert!(actual.contains(&format!("another {field}")), "{actual}");
    }
}

#[test]
fn texts_that_look_alike_are_told_apart_and_the_place_is_named() {
    // The letter in one part and in two.
    let (_, actual) = failure(
        "F03",
        &OddHarness::make(|record| {
            let composed = record.label.as_str().replace("e\u{301}", "\u{e9}");
            let composed = composed.replace(char::is_whitespace, "\u{a0}");
            if composed.len() <= Label::MAX_LEN {
                record.label = Label::new(&composed).expect("the length was looked at");
            }
            record.subject = None;
        }),
    );
    assert!(actual.is_ascii(), "{actual}");
}

#[test]
fn a_call_that_does_not_end_is_named_and_so_is_whose_repetition_it_is() {
    let (_, actual) = failure("E01", &OddHarness::make(|_| {}));
    let retry = "still running: 1 load (the case's own retry: attempt 4 after Unavailable)";
    assert!(actual.contains(retry), "{actual}");

    let make: MakeHarness = Arc::new(|| {
        Box::pin(async {
            let harness = BrokenHarness::new("locks-its-pool-twice")?;
            Ok(Arc::new(harness) as Arc<dyn Harness>)
        })
    });
    let (_, actual) = failure("C13", &make);
    let first = "still running: 64 update (no retry of the case)";
    assert!(actual.contains(first), "{actual}");
}

#[test]
fn what_did_not_succeed_has_a_name_or_a_place() {
    let (expected, actual) = failure("R01", &OddHarness::make(|_| {}));
    assert!(actual.starts_with("InvalidConfig"), "{actual}");
    assert!(expected.contains("browser.rs:"), "{expected}");
}

#[test]
fn random_calls_are_shortened_to_the_fewest_and_the_plainest() {
    let make: MakeHarness = Arc::new(|| {
        Box::pin(async {
            let harness = BrokenHarness::new("update-keeps-the-revision")?;
            Ok(Arc::new(harness) as Arc<dyn Harness>)
        })
    });
    let (_, actual) = failure("F09", &make);
    let (_, calls) = actual.split_once(" after ").expect("the calls are shown");
    let calls: Vec<_> = calls.split("), ").collect();
    assert_eq!(calls.len(), 3, "{actual}");
    assert_eq!(calls[0], "0: create(t0, 1 bytes", "{actual}");
    assert_eq!(calls[1], "0: update(t0, current, 1 bytes", "{actual}");
}

/// Keeps the signature of errors in use: a message without its cause is no message.
#[test]
fn an_error_is_shown_with_its_cause() {
    let error = Error::new(ErrorKind::Unavailable, "no answer")
        .with_source(Error::new(ErrorKind::Full, "the disk is full"));
    let failure = sessionkit_conformance::Failure::from(error);
    let reason = failure.into_verdict().reason();
    assert!(reason.contains("no answer"), "{reason}");
    assert!(reason.contains("the disk is full"), "{reason}");
}
