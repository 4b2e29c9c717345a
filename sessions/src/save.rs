//! Carries out what `commit` decides: calls the store, merges after a conflict, and settles calls
//! whose answers were lost.

use tokio::sync::MutexGuard;

use crate::{
    Custody, Error, ErrorKind, Record, Result, Revision, SessionStore, Token,
    commit::{Action, Planned, Stored, too_large},
    session::Inner,
};

/// How often a save is tried when others keep changing the session. Requests of one process queue
/// up after the first conflict, so that only other processes can be in the way.
const MAX_TRIES: u32 = 64;

/// How often a call is repeated whose answer was lost. Each may have taken the store's deadline.
const MAX_LOST_ANSWERS: u32 = 3;

/// What a save did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// Nothing: there was no change.
    Unchanged,
    /// It called the store, which holds the session as the handler sees it.
    Stored,
    /// Nothing, and the changes are dropped: another request has ended the session meanwhile.
    Gone,
}

/// Calls the store until nothing is left to do.
pub(crate) async fn save(session: &Inner) -> Result<Saved> {
    // One save of a session at a time: two would take each other's write for a conflict.
    let _saving = session.saving.lock().await;
    let mut saved = Saved::Unchanged;
    let mut lane = None;
    let (mut tries, mut lost_answers) = (0, 0);
    while let Some(planned) = session.plan()? {
        match perform(session, &planned.action).await {
            Ok(token) => {
                session.draft().done(planned, token);
                saved = Saved::Stored;
            }
            Err(error) => {
                tries += 1;
                lost_answers += u32::from(error.kind() == ErrorKind::Ambiguous);
                if error.kind() != ErrorKind::Ambiguous {
                    session.draft().not_done(&planned);
                }
                if tries == MAX_TRIES || lost_answers > MAX_LOST_ANSWERS {
                    return Err(error);
                }
                if error.kind() == ErrorKind::Conflict {
                    wait_in_lane(session, &planned, &mut lane, tries).await;
                }
                settle(session, &planned, error).await?;
            }
        }
    }
    if session.draft().gone {
        saved = Saved::Gone;
    }
    Ok(saved)
}

async fn perform(session: &Inner, action: &Action) -> Result<Token> {
    let store = &session.setup.store;
    let token = match action {
        Action::Create(token, record) => store.create(token.clone(), record).await,
        Action::Update(token, expected, record) => store.update(token, *expected, record).await,
        Action::Touch(token, expires_at) => store.touch(token, *expires_at).await,
        Action::Rotate(from, to, expected, record) => {
            store.rotate(from, to.clone(), *expected, record).await
        }
        Action::Delete(token) => match store.delete(token).await {
            Err(error) if session.is_with_client() && error.kind() == ErrorKind::Unsupported => {
                Ok(token.clone())
            }
            deleted => deleted.map(|()| token.clone()),
        },
    }?;
    let kept = !matches!(action, Action::Delete(_));
    if kept && session.is_with_client() {
        check_fit(session, &token)?;
    }
    Ok(token)
}

/// A client-side store has written nothing yet: what does not fit into the cookie is refused here.
fn check_fit(session: &Inner, token: &Token) -> Result<()> {
    let draft = session.draft();
    let options = draft.cookie_options.as_ref();
    let options = options.unwrap_or(&session.setup.cookie);
    options
        .check_fit(token.expose().len())
        .map_err(|long| too_large(long.size, long.limit, &draft.snapshot))
}

/// Requests of one process that change one session at the same time take turns after the first
/// conflict; the pause lets other processes finish.
async fn wait_in_lane<'a>(
    session: &'a Inner,
    planned: &Planned,
    lane: &mut Option<MutexGuard<'a, ()>>,
    tries: u32,
) {
    if lane.is_some() {
        pause(session, tries).await;
    } else {
        let lanes = &session.setup.lanes;
        let index = usize::from(planned.source().key().as_bytes()[0]) % lanes.len();
        *lane = Some(lanes[index].lock().await);
    }
}

#[cfg(feature = "tokio")]
async fn pause(session: &Inner, tries: u32) {
    const LONGEST: u32 = 32;
    let longest = std::time::Duration::from_millis(LONGEST.min(1 << tries.min(31)).into());
    let mut random = [0];
    // Without randomness two processes may collide once more, no worse.
    if session.manager.entropy.fill(&mut random).is_ok() {
        tokio::time::sleep(longest * u32::from(random[0]) / 255).await;
    }
}

#[cfg(not(feature = "tokio"))]
async fn pause(_: &Inner, _: u32) {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// Finds out what the store holds after a call that did not succeed, and prepares the next try.
async fn settle(session: &Inner, planned: &Planned, error: Error) -> Result<()> {
    let (source, target, expected) = match &planned.action {
        Action::Create(token, _) => (None, Some(token), None),
        Action::Update(token, expected, _) => (Some(token), None, Some(*expected)),
        Action::Rotate(from, to, expected, _) => (Some(from), Some(to), Some(*expected)),
        // Repeating these is harmless.
        Action::Delete(_) if error.kind() == ErrorKind::Ambiguous => return Ok(()),
        Action::Touch(token, _) => (Some(token), None, None),
        Action::Delete(_) => return Err(error),
    };
    match error.kind() {
        ErrorKind::Missing if target.is_none() || !session.draft().is_unsettled() => {
            session.draft().set_gone();
            return Ok(());
        }
        ErrorKind::Missing | ErrorKind::Exists | ErrorKind::Conflict | ErrorKind::Ambiguous => {}
        _ => return Err(error),
    }
    if let Some(target) = target {
        let unsettled = session.draft().is_unsettled();
        if unsettled && recover(session, source, target, &error).await? {
            return Ok(());
        }
        if error.kind() == ErrorKind::Exists {
            session.draft().reject_next_token();
        }
    }
    match source {
        None => Ok(()),
        Some(source) => reload(session, source, expected, &error).await,
    }
}

/// Whether an earlier write of this session is found under the token it was to get.
async fn recover(
    session: &Inner,
    source: Option<&Token>,
    target: &Token,
    error: &Error,
) -> Result<bool> {
    let found = read_back(session, target, error).await?;
    let Some(stored) = found.filter(|found| session.draft().wrote(found.revision)) else {
        return Ok(false);
    };
    if let Some(source) = source {
        // A rotation that failed halfway may have left the old token alive.
        session.setup.store.delete(source).await?;
    }
    session.draft().recover(stored)?;
    Ok(true)
}

async fn reload(
    session: &Inner,
    source: &Token,
    expected: Option<Revision>,
    error: &Error,
) -> Result<()> {
    let fresh = read_back(session, source, error).await?;
    let mut draft = session.draft();
    match fresh {
        None => draft.set_gone(),
        Some(fresh) if draft.wrote(fresh.revision) => draft.recover(fresh)?,
        Some(fresh) if expected == Some(fresh.revision) => {}
        Some(fresh) => draft.rebase(fresh)?,
    }
    Ok(())
}

/// The session under a token now. When it cannot be read, the error that made us look is the one
/// to report if it says that a write may have happened.
async fn read_back(session: &Inner, token: &Token, error: &Error) -> Result<Option<Stored>> {
    let record = match session.setup.store.load(token).await {
        Ok(record) => record,
        Err(_) if error.kind() == ErrorKind::Ambiguous => return Err(ErrorKind::Ambiguous.into()),
        Err(error) => return Err(error),
    };
    record.map_or(Ok(None), |record| {
        session.read(&record, token.clone(), true)
    })
}

/// The session under a token, for a handler that asks for it anew.
pub(crate) async fn reload_discarding(session: &Inner) -> Result<()> {
    let _saving = session.saving.lock().await;
    let token = session.draft().stored.as_ref().map(|stored| {
        let current = stored.token_current;
        (stored.token.clone(), current)
    });
    let Some((token, current)) = token else {
        return Ok(());
    };
    let record: Option<Record> = session.setup.store.load(&token).await?;
    let stored = record.map_or(Ok(None), |record| session.read(&record, token, current))?;
    let mut draft = session.draft();
    match stored {
        Some(stored) => draft.reset(stored),
        None => draft.set_gone(),
    }
    Ok(())
}

impl Inner {
    fn plan(&self) -> Result<Option<Planned>> {
        let mut draft = self.draft();
        let planned = draft.plan(
            &self.setup.policy,
            self.manager.clock.now(),
            &*self.manager.entropy,
            || Token::random(&*self.manager.entropy, self.setup.cookie.name()),
        )?;
        if let Some(planned) = &planned {
            if draft.head_sent && (planned.changes_token() || self.is_with_client()) {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "the head of the response is sent, and the session needs another cookie",
                ));
            }
            draft.begin(planned);
        }
        Ok(planned)
    }

    fn read(&self, record: &Record, token: Token, current: bool) -> Result<Option<Stored>> {
        let now = self.manager.clock.now();
        Stored::read(record, token, current, &self.setup.policy, now)
    }

    fn is_with_client(&self) -> bool {
        self.setup.custody == Custody::Client
    }
}
