//! Who the visitor is. Signing in asks for no password: this app shows sessions, not accounts.

use std::time::Duration;

use sessionkit::{ErrorKind, Label, Persistence, Result, Session, Subject};

use crate::error::Error;

/// How long a remembered visitor stays signed in without coming back.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(14 * 24 * 60 * 60);

const KEY: &str = "user";

/// The name of a user, fit for a line of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User(String);

impl User {
    const MAX_LEN: usize = 64;

    pub(crate) fn new(name: &str) -> Result<Self, Error> {
        let name = name.trim();
        if name.is_empty() || name.len() > Self::MAX_LEN || name.contains(char::is_control) {
            return Err(Error::invalid(
                "a user has a name of 1 to 64 bytes on one line",
            ));
        }
        Ok(Self(name.to_owned()))
    }

    /// The user of a session, if somebody is signed in.
    pub(crate) fn of(session: &Session) -> Result<Option<Self>> {
        Ok(session.get(KEY)?.map(Self))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn subject(&self) -> Result<Subject> {
        Subject::new(self.as_str())
    }
}

/// Makes the session the user's, under a token that nobody could have planted.
pub(crate) fn sign_in(session: &Session, user: &User, remember: bool, label: Label) -> Result<()> {
    if User::of(session)?.is_some_and(|present| present != *user) {
        session.clear();
    }
    match session.sign_in(user.subject()?) {
        // A store in the cookie does not know the other sessions of a user.
        Err(error) if error.kind() == ErrorKind::Unsupported => session.renew(),
        signed_in => signed_in?,
    }
    session.insert(KEY, user.as_str())?;
    session.set_label(label);
    session.set_persistence(if remember {
        Persistence::For(REMEMBERED)
    } else {
        Persistence::Browser
    })
}
