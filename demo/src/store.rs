use std::sync::Arc;

use sessionkit::{Clock, Keyring, MemoryStore, Result, SessionStore};
use sessionkit_any::Opener;
use sessionkit_cookie::CookieStore;

use crate::account::REMEMBERED;

/// Opens the store that a URL names.
///
/// # Errors
/// As [`Opener::open`].
pub async fn open(
    url: &str,
    keyring: &Keyring,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn SessionStore>> {
    if url == "cookie:" {
        return cookie(keyring, clock);
    }
    let opener = Opener::new()
        .keyring(keyring.clone())
        .clock(Arc::clone(clock));
    opener.open(url).await
}

/// Sessions in cookies, and a list of those that have ended: signing out is final for copies of the
/// cookie too, until the next restart.
fn cookie(keyring: &Keyring, clock: &Arc<dyn Clock>) -> Result<Arc<dyn SessionStore>> {
    let ended = MemoryStore::new().with_clock(Arc::clone(clock));
    let store = CookieStore::new(keyring.clone())
        .with_clock(Arc::clone(clock))
        .with_revocations(Arc::new(ended), REMEMBERED)?;
    Ok(Arc::new(store))
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
