use std::{collections::BTreeMap, sync::Arc};

use cookie::Cookie;
use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};
use sessionkit::{
    CookieOptions, Error, ErrorKind, Origin, SameSite, SessionConfig, SessionManager,
};
use sessionkit_cookie::CookieStore;

use crate::support::{Counter, KEYRING, at_once, clock};

/// The cookies of a response, whatever their options and the length of the session in them: another
/// implementation reads each attribute as it was set, no cookie is longer than browsers keep, and a
/// request with them has the session.
///
/// The input is five lines, name, path, domain, letters for the attributes that are on (`i`nsecure,
/// `r`eadable by scripts, `p`artitioned, `S`trict, `N`one) and the number of chunks, and then the
/// value in the session.
pub fn set_cookie(input: &[u8]) -> bool {
    let mut lines = input.splitn(6, |&byte| byte == b'\n');
    let mut line = || lines.next().and_then(|line| str::from_utf8(line).ok());
    let Some([name, path, domain, flags, chunks]) =
        (|| Some([line()?, line()?, line()?, line()?, line()?]))()
    else {
        return false;
    };
    let value = lines.next().unwrap_or_default();
    let Ok(mut options) = CookieOptions::new(name) else {
        return false;
    };
    options = options.path(path).partitioned(flags.contains('p'));
    options = options.max_chunks(chunks.parse().unwrap_or(1));
    if !domain.is_empty() {
        options = options.domain(domain);
    }
    if flags.contains(['S', 'N']) {
        let none = flags.contains('N');
        options = options.same_site(if none {
            SameSite::None
        } else {
            SameSite::Strict
        });
    }
    if flags.contains('r') {
        options = options.insecure_readable_by_scripts();
    }
    if flags.contains('i') {
        options = options.insecure_allow_plain_http();
    }
    let store = CookieStore::new(KEYRING.clone()).with_clock(clock());
    let config = SessionConfig::new(store.with_entropy(Arc::new(Counter::default())));
    let builder = SessionManager::builder(KEYRING.clone()).clock(clock());
    let built = builder
        .session("session", config.cookie(options.clone()))
        .build();
    let manager = match built {
        Ok(manager) => manager,
        Err(error) => {
            refused(&error, ErrorKind::InvalidConfig);
            return false;
        }
    };
    let Some(cookies) = response(&manager, value) else {
        return false;
    };
    let mut jar = BTreeMap::new();
    for header in &cookies {
        let text = header.to_str().expect("our cookies are visible ASCII");
        let cookie = Cookie::parse(text).expect("another implementation reads it");
        let own = options.name().as_str();
        assert!(cookie.name() == own || cookie.name().starts_with(&format!("{own}.")));
        assert!(cookie.name().len() + cookie.value().len() <= 4096);
        assert_eq!(cookie.path(), Some(path), "{text}");
        let domain = domain.strip_prefix('.').unwrap_or(domain);
        assert_eq!(cookie.domain().unwrap_or_default(), domain, "{text}");
        assert_eq!(
            cookie.secure().unwrap_or(false),
            !flags.contains('i'),
            "{text}"
        );
        assert_eq!(
            cookie.http_only().unwrap_or(false),
            !flags.contains('r'),
            "{text}"
        );
        assert_eq!(
            cookie.partitioned().unwrap_or(false),
            flags.contains('p'),
            "{text}"
        );
        let same_site = match flags {
            flags if flags.contains('N') => cookie::SameSite::None,
            flags if flags.contains('S') => cookie::SameSite::Strict,
            _ => cookie::SameSite::Lax,
        };
        assert_eq!(cookie.same_site(), Some(same_site), "{text}");
        let before = jar.insert(cookie.name().to_owned(), cookie.value().to_owned());
        assert_eq!(before, None, "one response sets a cookie once");
    }
    assert!(names(&manager, &jar, value));
    true
}

/// The cookies of a response that begins a session with this value; none if they cannot hold it.
fn response(manager: &SessionManager, value: &[u8]) -> Option<Vec<HeaderValue>> {
    let sessions = manager.begin(&HeaderMap::new());
    let session = at_once(sessions.session()).expect("a new session needs nothing");
    if let Err(error) = session.insert("value", value) {
        refused(&error, ErrorKind::TooLarge);
        return None;
    }
    let mut response = HeaderMap::new();
    if let Err(errors) = at_once(sessions.finish(&mut response)) {
        for (_, error) in errors.iter() {
            refused(error, ErrorKind::TooLarge);
        }
        return None;
    }
    let cookies = response.get_all(SET_COOKIE).iter().cloned().collect();
    Some(cookies)
}

/// Whether a request with these cookies has the session with this value.
fn names(manager: &SessionManager, jar: &BTreeMap<String, String>, value: &[u8]) -> bool {
    let pairs: Vec<_> = jar
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let cookie = HeaderValue::from_str(&pairs.join("; ")).expect("cookies are visible ASCII");
    let sessions = manager.begin(&HeaderMap::from_iter([(COOKIE, cookie)]));
    let session = at_once(sessions.session()).expect("the session is its own");
    session.origin() == Origin::Stored
        && session
            .get::<Vec<u8>>("value")
            .expect("it is bytes")
            .as_deref()
            == Some(value)
}

fn refused(error: &Error, kind: ErrorKind) {
    assert_eq!(error.kind(), kind, "{error}");
}
