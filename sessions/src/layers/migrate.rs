mod mark;
mod subjects;

use async_trait::async_trait;

use self::mark::{Found, Moved, Place};
use crate::{
    Capabilities, Custody, Error, ErrorKind, OsEntropy, Record, Result, Revision, SessionStore,
    SubjectIndex, Sweep, TimeSource, Timestamp, Token,
};

/// Each attempt that fails does so because another request made progress with the same session.
const ATTEMPTS: usize = 16;

/// Moves sessions from an old store to a new one, one by one as they are used, without ending any.
///
/// A load reads the new store, then the old one. New sessions are created in the new store. The
/// first write to a session that is still in the old store moves it. A session is never live in
/// both: a delete or a revocation ends it for good, also when it meets a move half-way, and a move
/// that was interrupted anywhere is completed by the next write.
///
/// **Every process has to use the layer**, for one that knows only the old store would not find
/// the sessions that were moved. The old store can go when all sessions in it have expired; until
/// then a session that does not exist costs three loads, one that was moved costs one; a touch costs
/// one load more. A record with more data than the new store takes can be read but not written. Both stores need an index
/// by subject for this one to have it.
///
/// ```
/// use sessionkit::{MemoryStore, layers::Migrate};
///
/// let (old, new) = (MemoryStore::new(), MemoryStore::new());
/// let store = Migrate::new(old, new)?;
/// # Ok::<(), sessionkit::Error>(())
/// ```
///
/// # How a session moves
///
/// Its key stays, and each step is one write to one of the stores.
///
/// 1. A copy goes into the new store, labelled so that nobody takes it for the session: the *fence*,
///    which has a random revision.
/// 2. The record in the old store is replaced, by compare-and-swap, by a mark that names that
///    revision. From here on the fence is the session.
/// 3. The fence is replaced by the session's record, by compare-and-swap, and the mark removed.
///
/// A fence that no mark names is void, and so is a mark without its fence. Deleting the record, or
/// the fence that the mark names, therefore ends the session at one instant, and whoever is late
/// with a step finds nothing to go on with: there is no fence to replace, and a new fence has a
/// revision that no mark mentions.
#[derive(Clone, Debug)]
pub struct Migrate<S, T> {
    old: S,
    new: T,
}

impl<S: SessionStore, T: SessionStore> Migrate<S, T> {
    /// Moves sessions from `old` to `new`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when one of the stores leaves its records with the client, or
    /// does not compare revisions.
    pub fn new(old: S, new: T) -> Result<Self> {
        for capabilities in [old.capabilities(), new.capabilities()] {
            if capabilities.custody != Custody::Server || !capabilities.compare_and_swap {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    "sessions move only between stores that keep them on a server",
                ));
            }
        }
        Ok(Self { old, new })
    }

    async fn find_old(&self, token: &Token) -> Result<Option<Found>> {
        self.old.load(token).await?.map(Found::new).transpose()
    }

    async fn find_new(&self, token: &Token) -> Result<Option<Place>> {
        Ok(self.new.load(token).await?.map(Place::new))
    }

    /// Sees to it that the record of a token is in the new store, if there is one.
    ///
    /// Nothing changes that a caller could see, whatever the outcome, so no error of this is
    /// ambiguous.
    async fn bring(&self, token: &Token) -> Result<()> {
        self.try_bring(token).await.map_err(|error| {
            if error.kind() == ErrorKind::Ambiguous {
                Error::new(ErrorKind::Unavailable, "the session could not be moved")
                    .with_source(error)
            } else {
                error
            }
        })
    }

    async fn try_bring(&self, token: &Token) -> Result<()> {
        let mut raised = None;
        for _ in 0..ATTEMPTS {
            match self.find_old(token).await? {
                None => {
                    self.lower_fence(token, raised).await;
                    return Ok(());
                }
                Some(Found::Moved(moved)) => {
                    self.lower_fence(token, raised.filter(|&fence| fence != moved.fence))
                        .await;
                    return self.finish(token, &moved).await;
                }
                Some(Found::Whole(record)) => {
                    raised = self.raise_fence(token, &record).await?;
                    if let Some(fence) = raised {
                        let moved = Moved::new(&record, fence);
                        let mark = moved.mark(&record, Revision::random(&OsEntropy)?);
                        let replaced = self.old.update(token, record.revision, &mark).await;
                        if unless_changed(replaced)? {
                            return self.finish(token, &moved).await;
                        }
                    }
                }
            }
        }
        Err(busy())
    }

    /// Step 1: the revision of a fence that holds this record, or `None` when others interfered.
    async fn raise_fence(&self, token: &Token, record: &Record) -> Result<Option<Revision>> {
        let revision = Revision::random(&OsEntropy)?;
        let fence = mark::fence(record, revision);
        match self.new.create(token.clone(), &fence).await {
            Ok(_) => return Ok(Some(revision)),
            Err(error) if error.kind() == ErrorKind::Exists => {}
            Err(error) => return Err(error),
        }
        match self.find_new(token).await? {
            // Another request is moving the session: whoever is first takes the next step.
            Some(Place::Fence(found)) if found == mark::fence(record, found.revision) => {
                Ok(Some(found.revision))
            }
            Some(Place::Fence(found)) => {
                let replaced = self.new.update(token, found.revision, &fence).await;
                Ok(unless_changed(replaced)?.then_some(revision))
            }
            Some(Place::Arrived(_)) | None => Ok(None),
        }
    }

    /// Step 3, of a move that this or another request has begun.
    async fn finish(&self, token: &Token, moved: &Moved) -> Result<()> {
        if let Some(Place::Fence(fence)) = self.find_new(token).await?
            && fence.revision == moved.fence
        {
            let record = moved.restore(fence);
            unless_changed(self.new.update(token, moved.fence, &record).await)?;
        }
        // The mark is void now and does no harm; it goes with its expiry if it has to stay.
        let _ = self.old.delete(token, None).await;
        Ok(())
    }

    /// Removes a fence that no mark can name any more: a copy of the data that nobody needs, which
    /// would otherwise stay until it expires.
    async fn lower_fence(&self, token: &Token, raised: Option<Revision>) {
        if let Some(fence) = raised {
            let _ = self.new.delete(token, Some(fence)).await;
        }
    }

    /// Ends a session that has not arrived in the new store, at one instant. Returns whether there
    /// was one.
    async fn end_old(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        let check = |revision| match expected {
            Some(expected) if expected != revision => Err(Error::from(ErrorKind::Conflict)),
            _ => Ok(()),
        };
        for _ in 0..ATTEMPTS {
            let ended = match self.find_old(token).await {
                Ok(Some(Found::Whole(record))) => {
                    check(record.revision)?;
                    self.old.delete(token, Some(record.revision)).await
                }
                Ok(Some(Found::Moved(moved))) => match self.find_new(token).await? {
                    Some(Place::Fence(fence)) if fence.revision == moved.fence => {
                        check(moved.revision)?;
                        self.new.delete(token, Some(moved.fence)).await
                    }
                    _ => return Ok(false),
                },
                Err(error) if error.kind() == ErrorKind::Corrupt && expected.is_none() => {
                    return Ok(false);
                }
                Ok(None) => return Ok(false),
                Err(error) => return Err(error),
            };
            match ended {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Err(busy())
    }

    /// Removes what is not live from the new store. Of a record that has come since nobody can tell
    /// whether it was a session or a void fence.
    async fn clear_new(&self, token: &Token) -> Result<bool> {
        if self.new.delete(token, None).await? {
            return Err(Error::new(
                ErrorKind::Ambiguous,
                "a session began or moved while it was being removed",
            ));
        }
        Ok(false)
    }

    /// Ends a session that is in the new store, but no fence: a fence that is there is void.
    async fn end_new(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        for _ in 0..ATTEMPTS {
            let (revision, is_fence) = match self.find_new(token).await {
                Ok(None) if expected.is_none() => return self.clear_new(token).await,
                Ok(None) => return Ok(false),
                Ok(Some(Place::Arrived(record))) => (record.revision, false),
                Ok(Some(Place::Fence(fence))) => (fence.revision, true),
                Err(error) if error.kind() == ErrorKind::Corrupt && expected.is_none() => {
                    return self.new.delete(token, None).await;
                }
                Err(error) => return Err(error),
            };
            let expected = expected.filter(|_| !is_fence).unwrap_or(revision);
            match self.new.delete(token, Some(expected)).await {
                Ok(live) => return Ok(live && !is_fence),
                Err(error) if error.kind() == ErrorKind::Conflict && expected == revision => {}
                Err(error) => return Err(error),
            }
        }
        Err(busy())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SessionStore, T: SessionStore> SessionStore for Migrate<S, T> {
    fn capabilities(&self) -> Capabilities {
        let (old, new) = (self.old.capabilities(), self.new.capabilities());
        let mut both = new.clone();
        both.expiry_granularity = old.expiry_granularity.max(new.expiry_granularity);
        both.durability = old.durability.min(new.durability);
        both.staleness = old.staleness.max(new.staleness);
        if old.time_source == TimeSource::Server {
            both.time_source = TimeSource::Server;
        }
        if old.sweep == Sweep::Explicit {
            both.sweep = Sweep::Explicit;
        }
        both
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        record.check_size(self.new.capabilities().max_data)?;
        for _ in 0..ATTEMPTS {
            let moved = match self.find_old(&token).await? {
                Some(Found::Whole(_)) => return Err(ErrorKind::Exists.into()),
                Some(Found::Moved(moved)) => Some(moved.fence),
                None => None,
            };
            match self.new.create(token.clone(), record).await {
                Err(error) if error.kind() == ErrorKind::Exists => {}
                result => return result,
            }
            match self.find_new(&token).await? {
                // Nobody can make a void fence valid any more: the old store has no record.
                Some(Place::Fence(fence)) if moved != Some(fence.revision) => {
                    let replaced = self.new.update(&token, fence.revision, record).await;
                    if unless_changed(replaced)? {
                        return Ok(token);
                    }
                }
                Some(_) => return Err(ErrorKind::Exists.into()),
                None => {}
            }
        }
        Err(busy())
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        let fence = match self.find_new(token).await? {
            Some(Place::Arrived(record)) => return Ok(Some(record)),
            Some(Place::Fence(fence)) => Some(fence),
            None => None,
        };
        match self.find_old(token).await? {
            Some(Found::Whole(record)) => return Ok(Some(record)),
            Some(Found::Moved(moved)) => {
                if let Some(fence) = fence.filter(|fence| fence.revision == moved.fence) {
                    return Ok(Some(moved.restore(fence)));
                }
                // The fence may have been raised after the first look.
                return Ok(match self.find_new(token).await? {
                    Some(Place::Arrived(record)) => Some(record),
                    Some(Place::Fence(fence)) if fence.revision == moved.fence => {
                        Some(moved.restore(fence))
                    }
                    _ => None,
                });
            }
            None => {}
        }
        // It may have arrived after the first look.
        Ok(match self.find_new(token).await? {
            Some(Place::Arrived(record)) => Some(record),
            _ => None,
        })
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        let mut brought = false;
        for _ in 0..ATTEMPTS {
            match self.new.update(token, expected, record).await {
                Err(error) if error.kind() == ErrorKind::Missing && !brought => {}
                // What it conflicted with may have been a fence.
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    match self.find_new(token).await? {
                        Some(Place::Arrived(found)) if found.revision != expected => {
                            return Err(error);
                        }
                        Some(Place::Arrived(_)) => continue,
                        Some(Place::Fence(_)) | None if brought => {
                            return Err(ErrorKind::Missing.into());
                        }
                        Some(Place::Fence(_)) | None => {}
                    }
                }
                result => return result,
            }
            self.bring(token).await?;
            brought = true;
        }
        Err(busy())
    }

    async fn renew(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        // Both stores keep their records themselves, where a renewal is an update.
        self.update(token, expected, record).await
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        // A fence must not be touched: it is no session yet, or not any more.
        if !matches!(self.find_new(token).await?, Some(Place::Arrived(_))) {
            self.bring(token).await?;
            if !matches!(self.find_new(token).await?, Some(Place::Arrived(_))) {
                return Err(ErrorKind::Missing.into());
            }
        }
        self.new.touch(token, expires_at).await
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        if self.end_old(token, expected).await? {
            // What is left is void.
            if let Ok(Some(Place::Fence(fence))) = self.find_new(token).await {
                self.lower_fence(token, Some(fence.revision)).await;
            }
            let _ = self.old.delete(token, None).await;
            return Ok(true);
        }
        let ended = self.end_new(token, expected).await?;
        // What is left is void, expired, or cannot be read.
        match self.old.delete(token, None).await {
            Err(error) if !ended => Err(error),
            _ => Ok(ended),
        }
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        let mut removed = 0;
        for (store, capabilities) in [
            (&self.old as &dyn SessionStore, self.old.capabilities()),
            (&self.new, self.new.capabilities()),
        ] {
            let rest = limit.saturating_sub(usize::try_from(removed).unwrap_or(usize::MAX));
            if capabilities.sweep == Sweep::Explicit && rest > 0 {
                removed += store.sweep(rest).await?;
            }
        }
        Ok(removed)
    }

    async fn try_sweep(&self, limit: usize) -> Result<Option<u64>> {
        let (mut removed, mut swept) = (0, false);
        for (store, capabilities) in [
            (&self.old as &dyn SessionStore, self.old.capabilities()),
            (&self.new, self.new.capabilities()),
        ] {
            let rest = limit.saturating_sub(usize::try_from(removed).unwrap_or(usize::MAX));
            if capabilities.sweep == Sweep::Explicit
                && rest > 0
                && let Some(more) = store.try_sweep(rest).await?
            {
                swept = true;
                removed += more;
            }
        }
        Ok(swept.then_some(removed))
    }

    async fn ping(&self) -> Result<()> {
        self.old.ping().await?;
        self.new.ping().await
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        self.old.subjects()?;
        self.new.subjects()?;
        Some(self)
    }

    fn has_made(&self, token: &Token) -> bool {
        self.old.has_made(token) || self.new.has_made(token)
    }
}

/// Whether a write took effect, where it is no failure that somebody else was faster.
fn unless_changed<V>(result: Result<V>) -> Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            ErrorKind::Missing | ErrorKind::Conflict | ErrorKind::Exists => Ok(false),
            _ => Err(error),
        },
    }
}

fn busy() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the session is being written in the old store by something else",
    )
}

fn half_done(error: Error) -> Error {
    Error::new(
        ErrorKind::Ambiguous,
        "the session was ended in one of two stores",
    )
    .with_source(error)
}
