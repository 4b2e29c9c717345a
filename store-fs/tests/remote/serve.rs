//! The other process: keeps the stores open and makes the calls.

use std::{
    any::Any,
    collections::HashMap,
    io,
    os::{fd::AsFd, unix::net::UnixStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use serde::Serialize;
use sessionkit::{
    Clock, Result, Revision, SessionStore, StoreKey, Subject, SubjectIndex, Timestamp,
};
use sessionkit_fs::FsStore;
use tokio::{runtime, task::AbortHandle};

use super::{
    locked,
    wire::{self, Answer, CommitPoint, Error, Listed, Opened, Record, Reply, Request, Token},
};
use crate::harness::options;

/// Serves until the test process hangs up, which it does at the latest when it ends.
pub(super) fn serve() -> io::Result<()> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let socket = UnixStream::from(stdin);
    let requests = socket.try_clone()?;
    let server = Arc::new(Server {
        socket: Mutex::new(socket),
        stores: Mutex::default(),
        running: Mutex::default(),
        questions: Mutex::default(),
        next: AtomicU64::new(0),
    });
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let entered = runtime.enter();
    while let Some(request) = wire::receive(&requests) {
        server.take(request);
    }
    drop(entered);
    // A call that nobody waits for need not end.
    runtime.shutdown_background();
    Ok(())
}

#[derive(Debug)]
struct Server {
    socket: Mutex<UnixStream>,
    stores: Mutex<HashMap<u64, Arc<FsStore>>>,
    running: Mutex<HashMap<u64, AbortHandle>>,
    /// Of the threads that have asked for the time.
    questions: Mutex<HashMap<u64, mpsc::Sender<i64>>>,
    next: AtomicU64,
}

impl Server {
    /// Waits for nothing, so that the test process can always go on sending.
    fn take(self: &Arc<Self>, request: Request) {
        match request {
            Request::CommitPoint {
                id,
                store,
                call: CommitPoint::Open { path },
            } => self.start(id, Arc::clone(self).open(store, path)),
            Request::CommitPoint { id, store, call } => {
                let store = locked(&self.stores).get(&store).cloned();
                self.start(id, perform(store.expect("it is open"), call));
            }
            Request::Cancel { id } => {
                if let Some(call) = locked(&self.running).remove(&id) {
                    call.abort();
                }
            }
            Request::Close { store } => drop(locked(&self.stores).remove(&store)),
            Request::Time { id, now } => {
                let question = locked(&self.questions).remove(&id);
                let question = question.expect("it is answered once");
                question.send(now).expect("a thread waits");
            }
        }
    }

    fn start(self: &Arc<Self>, id: u64, work: impl Future<Output = Vec<u8>> + Send + 'static) {
        let mut running = locked(&self.running);
        let work = tokio::spawn(work);
        running.insert(id, work.abort_handle());
        drop(running);
        let server = Arc::clone(self);
        tokio::spawn(async move {
            let ended = work.await;
            locked(&server.running).remove(&id);
            let answer = match ended {
                Ok(result) => Answer::Returned(result),
                Err(error) if error.is_cancelled() => return,
                Err(error) => Answer::Panicked(text(&*error.into_panic())),
            };
            server.send(&Reply::Answer { id, answer });
        });
    }

    async fn open(self: Arc<Self>, store: u64, path: PathBuf) -> Vec<u8> {
        let clock = SharedClock(Arc::clone(&self), store);
        let opened = options(Arc::new(clock)).open(path).await;
        result(opened.map(|opened| {
            let about = Opened::new(&opened);
            locked(&self.stores).insert(store, Arc::new(opened));
            about
        }))
    }

    fn send(&self, reply: &Reply) {
        // Without a test process there is nobody to tell.
        let _ = wire::send(&self.socket, reply);
    }
}

async fn perform(store: Arc<FsStore>, call: CommitPoint) -> Vec<u8> {
    let subject = |subject: String| Subject::from_stored(subject).expect("it was one");
    let one_token = |done: Result<sessionkit::Token>| result(done.map(|token| Token::from(&token)));
    match call {
        CommitPoint::Open { .. } => unreachable!("there is no store yet"),
        CommitPoint::Create { token, record } => {
            one_token(store.create(token.into(), &record.into()).await)
        }
        CommitPoint::Load { token } => {
            let found = store.load(&token.into()).await;
            result(found.map(|found| found.as_ref().map(Record::from)))
        }
        CommitPoint::Update {
            token,
            expected,
            record,
        } => {
            let expected = Revision::from_bits(expected);
            one_token(store.update(&token.into(), expected, &record.into()).await)
        }
        CommitPoint::Touch { token, expires_at } => {
            let expires_at = Timestamp::from_millis(expires_at);
            one_token(store.touch(&token.into(), expires_at).await)
        }
        CommitPoint::Delete { token, expected } => {
            let expected = expected.map(Revision::from_bits);
            result(store.delete(&token.into(), expected).await)
        }
        CommitPoint::Ping => result(store.ping().await),
        CommitPoint::Sweep { limit } => result(store.sweep(limit).await),
        CommitPoint::List {
            subject: whose,
            after,
            limit,
        } => {
            let after = after.map(StoreKey::from_bytes);
            let listed = store.list(&subject(whose), after.as_ref(), limit).await;
            result(listed.map(|listed| listed.into_iter().map(Listed::from).collect::<Vec<_>>()))
        }
        CommitPoint::Revoke {
            subject: whose,
            key,
        } => {
            let key = StoreKey::from_bytes(key);
            result(store.revoke(&subject(whose), &key).await)
        }
        CommitPoint::RevokeAll {
            subject: whose,
            except,
        } => {
            let except = except.map(StoreKey::from_bytes);
            result(store.revoke_all(&subject(whose), except.as_ref()).await)
        }
    }
}

fn result<T: Serialize>(result: Result<T>) -> Vec<u8> {
    wire::encode(&result.map_err(Error::from))
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("something that is no text").to_owned()
}

/// The clock of the test process, which is asked each time: it may move during a call.
#[derive(Debug)]
struct SharedClock(Arc<Server>, u64);

impl Clock for SharedClock {
    fn now(&self) -> Timestamp {
        let Self(server, store) = self;
        let id = server.next.fetch_add(1, Ordering::Relaxed);
        let (question, answer) = mpsc::channel();
        locked(&server.questions).insert(id, question);
        server.send(&Reply::AskTime { id, store: *store });
        Timestamp::from_millis(answer.recv().expect("the test process answers"))
    }
}
