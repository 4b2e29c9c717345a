use std::sync::Arc;

use sessionkit::{Clock, Error, ErrorKind, Keyring, MemoryStore, Result, SessionStore};
use sessionkit_cookie::CookieStore;

use crate::account::REMEMBERED;

/// Opens the store that a URL names.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] when there is none.
pub fn open(url: &str, keyring: &Keyring, clock: &Arc<dyn Clock>) -> Result<Arc<dyn SessionStore>> {
    match url {
        "memory:" => Ok(memory(clock)),
        // The list of ended sessions makes a sign-out final for copies of the cookie too, until
        // the next restart.
        "cookie:" => CookieStore::new(keyring.clone())
            .with_clock(Arc::clone(clock))
            .with_revocations(memory(clock), REMEMBERED)
            .map(|store| Arc::new(store) as _),
        _ => Err(Error::new(
            ErrorKind::InvalidConfig,
            "there is no such store: take memory: or cookie:",
        )),
    }
}

fn memory(clock: &Arc<dyn Clock>) -> Arc<dyn SessionStore> {
    Arc::new(MemoryStore::new().with_clock(Arc::clone(clock)))
}

/// The URL as it may be shown: without user name, password and parameters.
pub(crate) fn redacted(url: &str) -> String {
    let shown = url.split(['?', '#']).next().unwrap_or_default();
    match shown.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let hosts = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{hosts}{path}")
        }
        None => shown.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_url_holds_no_password() {
        assert_eq!(redacted("memory:"), "memory:");
        assert_eq!(
            redacted("redis://user:secret@host:6379/0"),
            "redis://host:6379/0"
        );
        assert_eq!(redacted("redis://:p@ss@host"), "redis://host");
        assert_eq!(
            redacted("postgres://host/db?password=secret"),
            "postgres://host/db"
        );
    }
}
