//! Carries out what `commit` decides: calls the store, merges after a conflict, and settles calls
//! whose answers were lost.

use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

#[cfg(test)]
use crate::mistakes::{self, Mistake};
use crate::{
    Custody, Error, ErrorKind, Record, Result, Subject, Timestamp, Token,
    commit::{Action, Draft, Planned, Planner, Reading, too_large},
    session::Inner,
};

/// How often a save is tried when others keep changing the session. Requests of one process queue
/// up after the first conflict, so that only other processes can be in the way.
const MAX_TRIES: u32 = 64;

/// How often a call is repeated whose answer was lost.
const MAX_LOST_ANSWERS: u32 = 3;

/// Nothing is repeated after this time, the deadline that a store has by default: of a store that
/// hangs, a save waits for one write and one look at what came of it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a save did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// Nothing: there was no change.
    Unchanged,
    /// It called the store, which holds the session as the handler sees it.
    Stored,
    /// Nothing, and the changes are dropped: another request has ended the session meanwhile, or
    /// renewed it with a change of privilege.
    Gone,
}

/// Calls the store until nothing is left to do.
pub(crate) async fn save(session: &Inner) -> Result<Saved> {
    let saved = save_all(session).await;
    saved.map_err(|error| {
        if error.kind() != ErrorKind::Ambiguous && session.draft().may_have_written() {
            return Error::from(ErrorKind::Ambiguous).with_source(error);
        }
        error
    })
}

async fn save_all(session: &Inner) -> Result<Saved> {
    // One save of a session at a time: two would take each other's write for a conflict.
    let _saving = session.saving.lock().await;
    let mut saved = Saved::Unchanged;
    let mut queue = None;
    let (mut tries, mut lost_answers) = (0, 0);
    let began = session.manager.clock.now();
    loop {
        find_lost_creation(session).await?;
        let planned = match session.plan(began) {
            Err(error) if !session.draft().is_unsaved() => {
                warn_of_upkeep(session, &error);
                break;
            }
            planned => planned?,
        };
        let Some(planned) = planned else {
            break;
        };
        match perform(session, &planned).await {
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
                if planned.is_upkeep && error.kind() != ErrorKind::Missing {
                    // A later request does it: the answer of this one does not depend on it.
                    if error.kind() != ErrorKind::Conflict {
                        warn_of_upkeep(session, &error);
                    }
                    break;
                }
                if error.kind() == ErrorKind::Conflict {
                    wait_in_queue(session, &planned, &mut queue, tries).await;
                }
                if !settle(session, &planned, &error).await? {
                    return Err(error);
                }
                let elapsed = session.manager.clock.now().saturating_duration_since(began);
                let gives_up = tries >= MAX_TRIES
                    || lost_answers > MAX_LOST_ANSWERS
                    || lost_answers > 0 && elapsed >= PATIENCE;
                if gives_up {
                    find_lost_creation(session).await?;
                    if session.draft().is_unsaved() {
                        return Err(error);
                    }
                }
            }
        }
    }
    if session.draft().gone {
        saved = Saved::Gone;
    }
    Ok(saved)
}

fn warn_of_upkeep(session: &Inner, error: &Error) {
    tracing::warn!(
        session = session.setup.name,
        kind = ?error.kind(),
        "the use of a session could not be recorded; the next request tries again"
    );
}

async fn perform(session: &Inner, planned: &Planned) -> Result<Token> {
    let store = &session.setup.store;
    if !session.is_with_client() && planned.changes_token() {
        take_room(session, planned.token())?;
    }
    let token = match &planned.action {
        Action::Create(token, record) => store.create(token.clone(), record).await?,
        Action::Update(_, token, expected, record) => {
            store.update(token, *expected, record).await?
        }
        // A client-side store opens the old token; for the others both name the record.
        Action::Renew(old, new, expected, record) => {
            if session.is_with_client() {
                // The renewal makes the old token worthless: what does not fit is refused before.
                let trial = store.update(old, *expected, record).await?;
                check_fit(session, &trial)?;
            }
            let token = if session.is_with_client() { old } else { new };
            store.renew(token, *expected, record).await?
        }
        Action::Touch(token, expires_at) => store.touch(token, *expires_at).await?,
        Action::Delete(token, expected) => {
            match store.delete(token, *expected).await {
                Err(error)
                    if session.is_with_client() && error.kind() == ErrorKind::Unsupported => {}
                #[cfg(test)]
                Err(error)
                    if error.kind() == ErrorKind::Conflict
                        && mistakes::made(Mistake::SignOutStopsAtConflict) => {}
                deleted => {
                    deleted?;
                }
            }
            let response = &session.response;
            response.give_room(&session.manager, &session.setup);
            return Ok(token.clone());
        }
        Action::EndTwin(token) => return end_twin(session, token).await.map(|()| token.clone()),
        Action::EndSuccessor(token, subject) => {
            return end_successor(session, token, subject)
                .await
                .map(|()| token.clone());
        }
    };
    if session.is_with_client() {
        check_fit(session, &token)?;
    }
    Ok(token)
}

/// Ends a session that the request brought a cookie of beside this one's, if the cookie opens it.
/// One that cannot be read goes too: this is a sign-out.
async fn end_twin(session: &Inner, token: &Token) -> Result<()> {
    let store = &session.setup.store;
    let reading = match store.load(token).await {
        Err(error) if session.is_replaced(&error) => return Ok(()),
        Ok(None) => return Ok(()),
        Ok(Some(record)) => session.read(&record, token.clone(), true),
        Err(error) => Err(error),
    };
    let ended = match reading {
        Ok(Reading::Live(stored)) => store.delete(token, Some(stored.revision)).await,
        Err(error) if error.kind() == ErrorKind::Corrupt => store.delete(token, None).await,
        other => other.map(|_| false),
    };
    match ended {
        Err(error) if session.is_with_client() && error.kind() == ErrorKind::Unsupported => Ok(()),
        ended => ended.map(drop),
    }
}

/// Ends what another request has made of the session if it has the subject that signs in now: of
/// two sign-ins with one form, the second one takes the place of the first.
async fn end_successor(session: &Inner, token: &Token, subject: &Subject) -> Result<()> {
    let store = &session.setup.store;
    let successor = match store.load(token).await {
        Err(error) if session.is_replaced(&error) => None,
        loaded => loaded?,
    };
    match successor {
        Some(record) if record.subject.as_ref() == Some(subject) => {
            let revision = Some(record.revision);
            #[cfg(test)]
            let revision = revision.filter(|_| !mistakes::made(Mistake::EndedWithoutRevision));
            store.delete(token, revision).await.map(drop)
        }
        _ => Ok(()),
    }
}

/// A client-side store has written nothing yet: what does not fit into the cookie is refused here.
fn check_fit(session: &Inner, token: &Token) -> Result<()> {
    let draft = session.draft();
    let options = draft.cookie_options.as_ref();
    let options = options.unwrap_or(&session.setup.cookie);
    options
        .check_fit(token.expose().len())
        .map_err(|long| too_large(long.size, long.limit, &draft.snapshot))?;
    drop(draft);
    take_room(session, token)
}

/// Sees to it that the cookie of this token has room beside those of the other sessions.
fn take_room(session: &Inner, token: &Token) -> Result<()> {
    let (manager, setup) = (&session.manager, &session.setup);
    let value = manager.cookie_value(setup, token);
    let draft = session.draft();
    let options = draft.cookie_options.as_ref().unwrap_or(&setup.cookie);
    session
        .response
        .take_room(manager, setup, options, value.len())
}

/// Requests of one process that change one session at the same time take turns after the first
/// conflict; the pause lets other processes finish.
async fn wait_in_queue(
    session: &Inner,
    planned: &Planned,
    queue: &mut Option<OwnedMutexGuard<()>>,
    tries: u32,
) {
    if queue.is_some() {
        pause(session, tries).await;
    } else {
        *queue = session.setup.queues.enter(planned.token().key()).await;
    }
}

#[cfg(feature = "tokio")]
async fn pause(session: &Inner, tries: u32) {
    const LONGEST: u32 = 32;
    let longest = Duration::from_millis(LONGEST.min(1 << tries.min(31)).into());
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

/// Looks for a creation whose answer was lost or not waited for. If it is not there, the next one
/// gets another token.
async fn find_lost_creation(session: &Inner) -> Result<()> {
    let Some(token) = session.draft().lost_creation() else {
        return Ok(());
    };
    let found = match load(session, &token, &ErrorKind::Ambiguous.into()).await? {
        Some(record) => session.read(&record, token, true)?,
        None => Reading::Ended,
    };
    let mut draft = session.draft();
    match found {
        Reading::Live(stored) if draft.written_under(stored.revision).is_some() => {
            draft.recover(*stored)
        }
        _ => {
            draft.give_up_creation();
            Ok(())
        }
    }
}

/// Finds out what the store holds after a call that did not succeed, and prepares the next try.
/// Returns whether there is to be one.
async fn settle(session: &Inner, planned: &Planned, error: &Error) -> Result<bool> {
    if session.draft().epoch != planned.epoch {
        // The handler has ended the session meanwhile; nothing else is left to do.
        session.draft().doom_write(planned);
        return Ok(true);
    }
    match (&planned.action, error.kind()) {
        // The next try looks for it, and takes another token if it is not there.
        (Action::Create(..), ErrorKind::Exists | ErrorKind::Ambiguous) => {}
        // Repeating these is harmless.
        (Action::Delete(..), ErrorKind::Ambiguous) => {}
        (
            Action::EndSuccessor(..) | Action::EndTwin(_),
            ErrorKind::Ambiguous | ErrorKind::Conflict,
        ) => {}
        (Action::Delete(token, _), ErrorKind::Conflict) => {
            match load(session, token, error).await? {
                Some(fresh) => session.draft().doom_at(Some(fresh.revision)),
                None => session.draft().set_ended(),
            }
        }
        (Action::Delete(_, Some(_)), ErrorKind::Corrupt) => session.draft().doom_at(None),
        (Action::Touch(..), ErrorKind::Missing) => session.draft().set_gone(),
        (Action::Update(..) | Action::Renew(..), ErrorKind::Missing) => {
            ended(&mut session.draft())?;
        }
        (
            Action::Update(token, ..) | Action::Renew(token, ..),
            ErrorKind::Conflict | ErrorKind::Ambiguous,
        ) => reload(session, token, error).await?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// The record is not there any more. Whether an earlier write of this request was in it is not
/// known.
fn ended(draft: &mut Draft) -> Result<()> {
    if draft.may_have_written() {
        return Err(ErrorKind::Ambiguous.into());
    }
    draft.set_gone();
    Ok(())
}

/// Another request has renewed the session with a change of privilege, and an earlier write of this
/// one may have been part of what it renewed.
fn renewed(draft: &mut Draft) -> Result<()> {
    if draft.may_have_written() {
        return Err(ErrorKind::Ambiguous.into());
    }
    draft.set_renewed();
    Ok(())
}

async fn reload(session: &Inner, token: &Token, error: &Error) -> Result<()> {
    let fresh = match load(session, token, error).await {
        Err(error) if session.is_replaced(&error) => return renewed(&mut session.draft()),
        loaded => loaded?,
    };
    let Some(fresh) = fresh else {
        return ended(&mut session.draft());
    };
    let own = session.draft().written_under(fresh.revision);
    let is_own = own.is_some();
    let reading = session.read(&fresh, own.unwrap_or_else(|| token.clone()), true)?;
    let mut draft = session.draft();
    match reading {
        Reading::Live(stored) if is_own => draft.recover(*stored),
        Reading::Live(stored) => {
            let unchanged = draft
                .stored
                .as_ref()
                .is_some_and(|seen| seen.revision == stored.revision);
            if unchanged {
                return Ok(());
            }
            draft.rebase(*stored)
        }
        Reading::Ended => ended(&mut draft),
        Reading::Renewed | Reading::Reused(_) | Reading::Replaced | Reading::Unknown => {
            renewed(&mut draft)
        }
    }
}

/// The record under a token now. When it cannot be read, the error that made us look is the one
/// to report if it says that a write may have happened.
async fn load(session: &Inner, token: &Token, error: &Error) -> Result<Option<Record>> {
    session.setup.store.load(token).await.map_err(|failed| {
        if error.kind() == ErrorKind::Ambiguous {
            ErrorKind::Ambiguous.into()
        } else {
            failed
        }
    })
}

/// The session under a token, for a handler that asks for it anew.
pub(crate) async fn reload_discarding(session: &Inner) -> Result<()> {
    let _saving = session.saving.lock().await;
    let stored = session.draft().stored.as_ref().map(|stored| {
        let current = stored.cookie_current;
        (stored.token.clone(), current)
    });
    let Some((token, current)) = stored else {
        session.draft().drop_changes();
        return Ok(());
    };
    let record = match session.setup.store.load(&token).await {
        Err(error) if session.is_replaced(&error) => None,
        loaded => loaded?,
    };
    let own = record
        .as_ref()
        .and_then(|record| session.draft().written_under(record.revision));
    let is_own = own.is_some();
    let reading = match record {
        Some(record) => session.read(&record, own.unwrap_or(token), current)?,
        None => Reading::Ended,
    };
    let mut draft = session.draft();
    draft.drop_changes();
    match reading {
        Reading::Live(stored) => draft.reset(*stored, is_own),
        _ => draft.set_gone_unchanged(),
    }
    Ok(())
}

impl Inner {
    fn plan(&self, now: Timestamp) -> Result<Option<Planned>> {
        let head_sent = self.is_head_sent();
        let mut draft = self.draft();
        let planned = draft.plan(&Planner {
            policy: &self.setup.policy,
            now,
            entropy: &*self.manager.entropy,
            cookie_name: self.setup.cookie.name(),
            may_send: !head_sent,
        })?;
        if let Some(planned) = &planned {
            if head_sent && (planned.changes_token() || self.is_with_client()) {
                if planned.is_upkeep {
                    return Ok(None);
                }
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "the head of the response is sent, and the session needs another cookie",
                ));
            }
            draft.begin(planned);
        }
        Ok(planned)
    }

    fn read(&self, record: &Record, token: Token, current: bool) -> Result<Reading> {
        let now = self.manager.clock.now();
        #[cfg(test)]
        if mistakes::made(Mistake::SecretNotCompared) {
            return Reading::of_any(record, token, &self.setup.policy);
        }
        Reading::of(record, token, current, &self.setup.policy, now)
    }

    /// Whether the error of a load is what a client-side store says of a token that a renewal has
    /// replaced a moment ago.
    fn is_replaced(&self, error: &Error) -> bool {
        self.is_with_client() && error.kind() == ErrorKind::Conflict
    }

    fn is_with_client(&self) -> bool {
        self.setup.custody == Custody::Client
    }
}
