//! The requests of an exploration.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll},
};

use http::{HeaderMap, header::COOKIE, header::SET_COOKIE};

use super::world::World;
use crate::{
    ErrorKind, Origin, Result, SaveErrors, Saved, Session, SessionManager, StoreKey, Subject,
    commit::CookieAction,
};

pub(super) const ALICE: &str = "alice";
pub(super) const BOB: &str = "bob";

/// What a request does with its session. All but the first and those that end sessions also set a
/// key of their own and count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Read,
    Change,
    Renew,
    SignIn(&'static str),
    SignOut,
    /// Saves a change and signs out then.
    ChangeAndSignOut,
    /// Ends the session by its key, as Alice's.
    EndByKey,
    /// Ends all sessions of Alice.
    EndAll,
}

/// What the client of a request is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Gone,
    Failed(ErrorKind),
}

/// How a request ends, unless it is dropped.
pub(super) struct Finished {
    pub(super) told: Outcome,
    pub(super) origin: Option<Origin>,
    pub(super) cookie: CookieAction,
    /// What the browser sends from now on; none for the cookie that it has.
    pub(super) header: Option<String>,
}

impl Request {
    /// Whose session it becomes.
    pub(super) fn subject(self) -> Option<Subject> {
        match self {
            Self::SignIn(subject) => Some(Subject::new(subject).expect("a name is a subject")),
            _ => None,
        }
    }

    pub(super) fn renews(self) -> bool {
        matches!(self, Self::Renew | Self::SignIn(_))
    }

    pub(super) fn signs_out(self) -> bool {
        matches!(self, Self::SignOut | Self::ChangeAndSignOut)
    }

    /// Whether its changes are there when it was answered with Ok.
    pub(super) fn must_store(self) -> bool {
        matches!(self, Self::Change | Self::Renew | Self::SignIn(_))
    }

    /// The key that it sets as the request of this number.
    pub(super) fn key(self, number: usize) -> String {
        number.to_string()
    }

    /// The end of sessions by the index, which needs no session.
    pub(super) fn has_session(self) -> bool {
        !matches!(self, Self::EndByKey | Self::EndAll)
    }
}

/// Runs a request from its cookie to the response.
pub(super) async fn run(
    world: World,
    manager: SessionManager,
    request: Request,
    number: usize,
    cookie: Option<String>,
    key: StoreKey,
    saves: bool,
) -> Finished {
    let ended = match request {
        Request::EndByKey => manager.revoke(&alice(), &key).await.map(drop),
        Request::EndAll => manager.revoke_all(&alice()).await.map(drop),
        _ => return with_session(&world, &manager, request, number, cookie, saves).await,
    };
    Finished {
        told: ended.map_or_else(|error| Outcome::Failed(error.kind()), |()| Outcome::Done),
        origin: None,
        cookie: CookieAction::Keep,
        header: None,
    }
}

fn alice() -> Subject {
    Subject::new(ALICE).expect("a name is a subject")
}

async fn with_session(
    world: &World,
    manager: &SessionManager,
    request: Request,
    number: usize,
    cookie: Option<String>,
    saves: bool,
) -> Finished {
    let mut headers = HeaderMap::new();
    if let Some(cookie) = cookie {
        headers.insert(COOKIE, cookie.parse().expect("it came from a response"));
    }
    let sessions = manager.begin(&headers);
    let session = match sessions.session().await {
        Ok(session) => session,
        Err(error) => {
            return Finished {
                told: Outcome::Failed(error.kind()),
                origin: None,
                cookie: CookieAction::Keep,
                header: None,
            };
        }
    };
    handle(request, number, &session);
    let mut saved = None;
    if saves || request == Request::ChangeAndSignOut {
        saved = save(world, number, &session).await;
    }
    if request == Request::ChangeAndSignOut {
        session.destroy();
        saved = None;
        if saves {
            saved = save(world, number, &session).await;
        }
    }
    let mut response = HeaderMap::new();
    let finished = sessions.finish(&mut response).await;
    let cookie = session.0.draft().cookie.clone();
    let set = response.get(SET_COOKIE);
    let header = matches!(cookie, CookieAction::Set { .. }).then(|| {
        let text = set.expect("a cookie is set").to_str().expect("it is text");
        text.split(';').next().unwrap_or_default().to_owned()
    });
    Finished {
        told: told(saved, finished),
        origin: Some(session.origin()),
        cookie,
        header,
    }
}

fn handle(request: Request, number: usize, session: &Session) {
    match request {
        Request::Read | Request::EndByKey | Request::EndAll => return,
        Request::SignOut => {
            session.destroy();
            return;
        }
        Request::Renew => session.renew(),
        Request::SignIn(_) => {
            let subject = request.subject().expect("a sign-in has one");
            session.sign_in(subject).expect("the store has an index");
        }
        Request::Change | Request::ChangeAndSignOut => {}
    }
    let count = |count: Option<usize>| count.unwrap_or(0) + 1;
    session
        .insert(&request.key(number), &number)
        .and_then(|()| session.update("n", count))
        .expect("numbers can be stored");
}

fn told(saved: Option<Result<Saved>>, finished: Result<(), SaveErrors>) -> Outcome {
    let kind = match (saved, finished) {
        (Some(Err(error)), _) => error.kind(),
        (_, Err(errors)) => {
            let (_, error) = errors.iter().next().expect("there is at least one");
            error.kind()
        }
        (Some(Ok(Saved::Gone)), Ok(())) => ErrorKind::Gone,
        _ => return Outcome::Done,
    };
    match kind {
        ErrorKind::Gone => Outcome::Gone,
        kind => Outcome::Failed(kind),
    }
}

/// Saves a session, unless the explorer gives up waiting for it.
async fn save(world: &World, number: usize, session: &Session) -> Option<Result<Saved>> {
    let mut saving = pin!(session.save());
    let saved = std::future::poll_fn(|context: &mut Context<'_>| {
        if world.state().tasks[number].given_up {
            return Poll::Ready(None);
        }
        world.state().tasks[number].saving = true;
        Pin::as_mut(&mut saving).poll(context).map(Some)
    })
    .await;
    let mut state = world.state();
    state.tasks[number].saving = false;
    state.tasks[number].given_up = false;
    saved
}
