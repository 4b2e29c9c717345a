//! Stores in another process, which is this test program again, started by the first of them.

mod serve;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    collections::HashMap,
    env, fmt, io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use sessionkit::{
    Capabilities, Clock, Error, Record, Result, Revision, SessionStore, StoreKey, Subject,
    SubjectIndex, SubjectSession, Timestamp, Token,
};
use tokio::sync::oneshot;

use wire::{Answer, CommitPoint, Listed, Opened, Reply, Request};

/// Tells the program that it is the other process.
const SERVE: &str = "SESSIONKIT_FS_TEST_SERVE";

#[test]
#[ignore = "the process that the other tests start"]
fn other_process() {
    env::var_os(SERVE).expect("started by another test of this file");
    serve::serve().expect("the test process talks to this one");
}

/// A handle to an `FsStore` in the other process.
///
/// It does what that store does: a future of it that is dropped drops the one over there, and a
/// panic is a panic here.
pub(crate) struct RemoteStore {
    handle: Handle,
    opened: Opened,
}

impl RemoteStore {
    /// Opens the store of a directory, which goes by `clock`.
    pub(crate) async fn open(path: PathBuf, clock: Arc<dyn Clock>) -> Result<Self> {
        let handle = Handle::new(clock);
        let opened = handle.call(CommitPoint::Open { path }).await?;
        Ok(Self { handle, opened })
    }

    async fn moved(&self, call: CommitPoint) -> Result<Token> {
        let token: wire::Token = self.handle.call(call).await?;
        Ok(token.into())
    }
}

/// As the store over there.
impl fmt::Debug for RemoteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.opened.debug)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SessionStore for RemoteStore {
    fn capabilities(&self) -> Capabilities {
        self.opened.capabilities()
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        let (token, record) = ((&token).into(), record.into());
        self.moved(CommitPoint::Create { token, record }).await
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        let call = CommitPoint::Load {
            token: token.into(),
        };
        let found: Option<wire::Record> = self.handle.call(call).await?;
        Ok(found.map(Record::from))
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        let call = CommitPoint::Update {
            token: token.into(),
            expected: expected.to_bits(),
            record: record.into(),
        };
        self.moved(call).await
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        let call = CommitPoint::Touch {
            token: token.into(),
            expires_at: expires_at.as_millis(),
        };
        self.moved(call).await
    }

    async fn renew(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        self.update(token, expected, record).await
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        let call = CommitPoint::Delete {
            token: token.into(),
            expected: expected.map(Revision::to_bits),
        };
        self.handle.call(call).await
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        self.handle.call(CommitPoint::Sweep { limit }).await
    }

    async fn try_sweep(&self, limit: usize) -> Result<Option<u64>> {
        self.sweep(limit).await.map(Some)
    }

    async fn ping(&self) -> Result<()> {
        self.handle.call(CommitPoint::Ping).await
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        Some(self)
    }

    fn has_made(&self, _: &Token) -> bool {
        true
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SubjectIndex for RemoteStore {
    async fn list(
        &self,
        subject: &Subject,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<SubjectSession>> {
        let call = CommitPoint::List {
            subject: subject.as_str().to_owned(),
            after: after.map(|key| *key.as_bytes()),
            limit,
        };
        let listed: Vec<Listed> = self.handle.call(call).await?;
        Ok(listed.into_iter().map(SubjectSession::from).collect())
    }

    async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        let call = CommitPoint::Revoke {
            subject: subject.as_str().to_owned(),
            key: *key.as_bytes(),
        };
        self.handle.call(call).await
    }

    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64> {
        let call = CommitPoint::RevokeAll {
            subject: subject.as_str().to_owned(),
            except: except.map(|key| *key.as_bytes()),
        };
        self.handle.call(call).await
    }
}

/// The number of a store in the other process, which is closed when this is dropped.
struct Handle(u64);

impl Handle {
    fn new(clock: Arc<dyn Clock>) -> Self {
        let store = OTHER.number();
        // It stays there: a thread whose caller has gone may still ask for the time.
        locked(&OTHER.clocks).insert(store, clock);
        Self(store)
    }

    async fn call<T: DeserializeOwned>(&self, call: CommitPoint) -> Result<T> {
        let (id, store) = (OTHER.number(), self.0);
        let answer = OTHER.expect_answer(id);
        let _cancel = CancelOnDrop(id);
        OTHER.send(&Request::CommitPoint { id, store, call });
        match answer.await.expect("the other process does not end early") {
            Answer::Returned(result) => {
                let result: Result<T, wire::Error> = wire::decode(&result);
                result.map_err(Error::from)
            }
            Answer::Panicked(message) => panic!("in the other process: {message}"),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        OTHER.send(&Request::Close { store: self.0 });
    }
}

/// Ends a call over there, unless it was answered.
struct CancelOnDrop(u64);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let Self(id) = *self;
        if OTHER.answered(id).is_some() {
            OTHER.send(&Request::Cancel { id });
        }
    }
}

static OTHER: LazyLock<Arc<OtherProcess>> =
    LazyLock::new(|| OtherProcess::start().expect("this program can be started once more"));

/// The socket is the other process's standard input, and closes when this process ends, however
/// it ends.
struct OtherProcess {
    socket: Mutex<UnixStream>,
    /// The calls that are under way; `None` once the other process has ended.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>,
    clocks: Mutex<HashMap<u64, Arc<dyn Clock>>>,
    next: AtomicU64,
}

impl OtherProcess {
    fn start() -> io::Result<Arc<Self>> {
        let (socket, theirs) = UnixStream::pair()?;
        let replies = socket.try_clone()?;
        let child = Command::new(env::current_exe()?)
            .args(["--exact", "remote::other_process"])
            .args(["--ignored", "--nocapture"])
            .env(SERVE, "")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        let this = Arc::new(Self {
            socket: Mutex::new(socket),
            waiting: Mutex::new(Some(HashMap::new())),
            clocks: Mutex::default(),
            next: AtomicU64::new(0),
        });
        let listener = Arc::clone(&this);
        thread::spawn(move || listener.listen(&replies, child));
        Ok(this)
    }

    /// A thread of its own, because every test has another runtime.
    fn listen(&self, replies: &UnixStream, mut child: Child) {
        while let Some(reply) = wire::receive(replies) {
            match reply {
                Reply::Answer { id, answer } => {
                    if let Some(waiter) = self.answered(id) {
                        // Its future may be dropped right now.
                        let _ = waiter.send(answer);
                    }
                }
                Reply::AskTime { id, store } => {
                    let now = locked(&self.clocks)[&store].now().as_millis();
                    self.send(&Request::Time { id, now });
                }
            }
        }
        let status = child.wait();
        eprintln!("the other process has ended: {status:?}");
        locked(&self.waiting).take();
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn expect_answer(&self, id: u64) -> oneshot::Receiver<Answer> {
        let (waiter, answer) = oneshot::channel();
        let mut waiting = locked(&self.waiting);
        let waiting = waiting.as_mut().expect("the other process is there");
        waiting.insert(id, waiter);
        answer
    }

    fn answered(&self, id: u64) -> Option<oneshot::Sender<Answer>> {
        locked(&self.waiting).as_mut()?.remove(&id)
    }

    fn send(&self, request: &Request) {
        // When the other process has ended, its listener tells those who wait.
        let _ = wire::send(&self.socket, request);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
