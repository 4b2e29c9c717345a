//! Mistakes that the code makes on purpose while a test has switched them on: a test that looks for
//! mistakes proves that it finds them.

use std::cell::{Cell, RefCell};

use crate::Token;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// A save takes whatever session is under its key, and does not compare the secret.
    SecretNotCompared,
    /// A sign-out takes a conflict for an end.
    SignOutStopsAtConflict,
    /// What is ended in favour of a sign-in may have become another's meanwhile.
    EndedWithoutRevision,
    /// A creation whose answer was lost is sent again with its token.
    CreationRepeated,
    /// A request that is late for a change of privilege is let in as after a rotation.
    LateLetIn,
}

thread_local! {
    static MADE: Cell<Option<Mistake>> = const { Cell::new(None) };
    static TOKEN: RefCell<Option<Token>> = const { RefCell::new(None) };
}

/// Whether the code makes this mistake now.
pub(crate) fn made(mistake: Mistake) -> bool {
    MADE.get() == Some(mistake)
}

/// Makes a mistake on this thread while `run` runs.
pub(crate) fn with<T>(mistake: Mistake, run: impl FnOnce() -> T) -> T {
    MADE.set(Some(mistake));
    let result = run();
    MADE.set(None);
    result
}

/// Keeps the token of a lost creation for the next one.
pub(crate) fn keep_token(token: Option<Token>) {
    TOKEN.replace(token);
}

pub(crate) fn kept_token() -> Option<Token> {
    TOKEN.take()
}
