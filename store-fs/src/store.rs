use std::{
    fmt, panic,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use sessionkit::{
    Capabilities, Error, ErrorKind, Record, Result, Revision, SessionStore, StoreKey, Subject,
    SubjectIndex, SubjectSession, Timestamp, Token,
};
use tokio::{sync::Mutex, task, time};

use crate::{
    FsOptions, Quota, SyncPolicy,
    call::{Call, late},
    codec::MAX_DATA,
    failure::Failure,
    lock::ShardLocks,
    tree::{Seen, Tree, shard_of},
};

/// Keeps sessions in the files of a directory: for one machine without a database, for one process
/// or several, with everything that other backends promise.
///
/// Shared as an `Arc<FsStore>`, or opened as often as one likes, in as many processes. Dropping it
/// closes the directory; nothing is buffered.
///
/// ```
/// use sessionkit::{CookieName, OsEntropy, Record, Revision, SessionStore, Timestamp, Token};
/// use sessionkit_fs::FsStore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let parent = tempfile::tempdir()?;
/// # let path = parent.path().join("sessions");
/// let store = FsStore::open(&path).await?;
/// let token = Token::random(&OsEntropy, &CookieName::new("id")?)?;
/// let record = Record {
///     data: "hello".into(),
///     revision: Revision::random(&OsEntropy)?,
///     created_at: Timestamp::MIN,
///     expires_at: Timestamp::MAX,
///     subject: None,
///     label: Default::default(),
/// };
/// let token = store.create(token, &record).await?;
/// assert_eq!(FsStore::open(&path).await?.load(&token).await?, Some(record));
/// # Ok(())
/// # }
/// ```
pub struct FsStore {
    tree: Arc<Tree>,
    shards: ShardLocks,
    /// One sweep at a time: it waits in its thread.
    sweeping: Arc<Mutex<()>>,
    path: PathBuf,
    quota: Option<Quota>,
    deadline: Duration,
}

impl FsStore {
    /// The largest payload, in bytes.
    pub const MAX_DATA: usize = MAX_DATA;

    /// Opens the store in a directory with the default [`FsOptions`].
    ///
    /// # Errors
    /// As [`FsOptions::open`].
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        FsOptions::new().open(path).await
    }

    pub(crate) async fn open_with(path: PathBuf, options: FsOptions) -> Result<Self> {
        if options.deadline.is_zero() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "a deadline of zero leaves no time for anything",
            ));
        }
        let (opened, settings) = (path.clone(), options.clone());
        let tree = by_deadline(options.deadline, |call| async move {
            hop(&call, move |_| Ok(Tree::open(&opened, &settings)?)).await
        })
        .await?;
        Ok(Self {
            tree: Arc::new(tree),
            shards: ShardLocks::new(),
            sweeping: Arc::default(),
            path,
            quota: options.quota,
            deadline: options.deadline,
        })
    }

    /// What is synchronized with the disk before a write is acknowledged.
    #[must_use]
    pub fn sync_policy(&self) -> SyncPolicy {
        self.tree.sync
    }

    /// Does `work` in a thread that may block, as a part of a call.
    async fn hop<T: Send + 'static>(
        &self,
        call: &Arc<Call>,
        work: impl FnOnce(&Tree, &Call) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        let tree = Arc::clone(&self.tree);
        hop(call, move |call| work(&tree, call)).await
    }

    /// As [`hop`](Self::hop), for work that takes the lock of a key's directory.
    async fn hop_in_turn<T: Send + 'static>(
        &self,
        call: &Arc<Call>,
        key: StoreKey,
        work: impl FnOnce(&Tree, &Call, &StoreKey) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        let guard = self.shards.lock(shard_of(&key)).await;
        self.hop(call, move |tree, call| {
            let _guard = guard;
            work(tree, call, &key)
        })
        .await
    }

    /// A call that is no more than one hop in its turn.
    async fn run<T: Send + 'static>(
        &self,
        key: StoreKey,
        work: impl FnOnce(&Tree, &Call, &StoreKey) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        by_deadline(self.deadline, |call| async move {
            self.hop_in_turn(&call, key, work).await
        })
        .await
    }
}

impl fmt::Debug for FsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FsStore")
            .field("path", &self.path)
            .field("sync", &self.tree.sync)
            .field("quota", &self.quota)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl SessionStore for FsStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::server(MAX_DATA).durability(self.tree.sync.durability())
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        let (key, record) = (token.key(), record.clone());
        by_deadline(self.deadline, |call| async move {
            if self.tree.creates_unlocked(&record) {
                let record = record.clone();
                let create =
                    move |tree: &Tree, call: &Call| Ok(tree.create_unlocked(call, &key, &record)?);
                if self.hop(&call, create).await? {
                    return Ok(());
                }
            }
            self.hop_in_turn(&call, key, move |tree, call, key| {
                Ok(tree.create(call, key, &record)?)
            })
            .await
        })
        .await?;
        Ok(token)
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        let key = token.key();
        by_deadline(self.deadline, |call| async move {
            let load = move |tree: &Tree, _: &Call| tree.load(&key);
            match self.hop(&call, load).await? {
                None => Ok(None),
                Some(Seen::Live(record)) => Ok(Some(record)),
                Some(Seen::Expired) => self.hop_in_turn(&call, key, Tree::load_locked).await,
            }
        })
        .await
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        let record = record.clone();
        self.run(token.key(), move |tree, call, key| {
            Ok(tree.update(call, key, expected, &record)?)
        })
        .await?;
        Ok(token.clone())
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        self.run(token.key(), move |tree, call, key| {
            Ok(tree.touch(call, key, expires_at)?)
        })
        .await?;
        Ok(token.clone())
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        self.run(token.key(), move |tree, call, key| {
            Ok(tree.delete(call, key, expected)?)
        })
        .await
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        by_deadline(self.deadline, |call| async move {
            let guard = Arc::clone(&self.sweeping).lock_owned().await;
            self.hop(&call, move |tree, call| {
                let _guard = guard;
                Ok(tree.sweep(call, limit)?)
            })
            .await
        })
        .await
    }

    async fn ping(&self) -> Result<()> {
        by_deadline(self.deadline, |call| async move {
            self.hop(&call, |tree, _| tree.ping()).await
        })
        .await
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        Some(self)
    }
}

#[async_trait]
impl SubjectIndex for FsStore {
    async fn list(
        &self,
        subject: &Subject,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<SubjectSession>> {
        let after = after.copied();
        by_deadline(self.deadline, |call| async move {
            let listed = {
                let subject = subject.clone();
                let list = move |tree: &Tree, call: &Call| {
                    tree.list(call, &subject, after.as_ref(), limit)
                };
                self.hop(&call, list).await?
            };
            let mut sessions = Vec::with_capacity(listed.len());
            for (key, seen) in listed {
                match seen {
                    Seen::Live(session) => sessions.push(session),
                    Seen::Expired => {
                        let subject = subject.clone();
                        let find = move |tree: &Tree, call: &Call, key: &StoreKey| {
                            tree.list_locked(call, &subject, key)
                        };
                        let found = self.hop_in_turn(&call, key, find).await?;
                        sessions.extend(found);
                    }
                }
            }
            sessions.truncate(limit);
            Ok(sessions)
        })
        .await
    }

    async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        let subject = subject.clone();
        self.run(*key, move |tree, call, key| {
            Ok(tree.revoke(call, &subject, key)?)
        })
        .await
    }

    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64> {
        by_deadline(self.deadline, |call| async move {
            let keys = {
                let subject = subject.clone();
                let find = move |tree: &Tree, call: &Call| tree.keys_of(call, &subject);
                self.hop(&call, find).await?
            };
            let mut revoked = 0;
            // A session that was stored before has its entry, and keeps its key.
            for key in keys.into_iter().filter(|key| Some(key) != except) {
                let subject = subject.clone();
                let revoke = move |tree: &Tree, call: &Call, key: &StoreKey| {
                    Ok(tree.revoke(call, &subject, key)?)
                };
                let was_live = self.hop_in_turn(&call, key, revoke).await?;
                revoked += u64::from(was_live);
            }
            Ok(revoked)
        })
        .await
    }
}

/// Does the steps of one call of the store, within its deadline.
async fn by_deadline<T, F>(deadline: Duration, steps: impl FnOnce(Arc<Call>) -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let call = CancelOnDrop(Arc::new(Call::new(deadline)));
    match time::timeout(deadline, steps(Arc::clone(&call.0))).await {
        Ok(result) => result,
        Err(_) if call.0.cancel() => Err(late()),
        Err(_) => Err(Error::new(
            ErrorKind::Ambiguous,
            "the session directory did not finish a write in time",
        )),
    }
}

/// Does `work` in a thread that may block.
///
/// The thread is not told to stop: it finds the call cancelled when it asks, and leaves nothing
/// half done. So it makes no difference where the future is dropped.
async fn hop<T: Send + 'static>(
    call: &Arc<Call>,
    work: impl FnOnce(&Call) -> Result<T, Failure> + Send + 'static,
) -> Result<T> {
    let call = Arc::clone(call);
    let thread = task::spawn_blocking(move || {
        call.check()?;
        work(&call)
    });
    match thread.await {
        Ok(result) => Ok(result?),
        Err(ended) => match ended.try_into_panic() {
            Ok(payload) => panic::resume_unwind(payload),
            Err(cancelled) => Err(Error::new(
                ErrorKind::Unavailable,
                "the runtime is shutting down",
            )
            .with_source(cancelled)),
        },
    }
}

struct CancelOnDrop(Arc<Call>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
