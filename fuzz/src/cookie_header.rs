use std::sync::{Arc, LazyLock};

use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};
use sessionkit::{
    CookieOptions, ErrorKind, MemoryStore, Origin, Session, SessionConfig, SessionManager,
};
use sessionkit_cookie::CookieStore;

use crate::support::{Counter, KEYRING, assert_kind, at_once, clock};

const NAME: &str = "__Host-id";

/// The `Cookie` headers of a request, one in each line: a stored session comes from its own cookie
/// alone, which other cookies cannot hide, and every answer is for a cookie of ours.
pub fn cookie_header(input: &[u8]) -> bool {
    let World {
        server,
        client,
        good,
    } = &*WORLD;
    let has_stored = look(server, &headers(input));
    assert!(!has_stored || contains(input, good.as_bytes()));
    assert!(!look(client, &headers(input)), "nobody has made its cookie");
    if !contains(input, NAME.as_bytes()) {
        let own = format!("\n{NAME}={good}");
        assert!(look(server, &headers(&[input, own.as_bytes()].concat())));
    }
    has_stored
}

/// Whether the request names a stored session.
fn look(manager: &SessionManager, request: &HeaderMap) -> bool {
    let sessions = manager.begin(request);
    let session = match at_once(sessions.session()) {
        Ok(session) if session.origin() == Origin::Stored => return true,
        Ok(session) => session,
        Err(error) => {
            assert_kind(&error, ErrorKind::Corrupt);
            return false;
        }
    };
    session.destroy();
    let mut response = HeaderMap::new();
    at_once(sessions.finish(&mut response)).expect("there is nothing to save");
    for cookie in response.get_all(SET_COOKIE) {
        let cookie = cookie.to_str().expect("our cookies are visible ASCII");
        let cookie = cookie::Cookie::parse(cookie).expect("our cookies are cookies");
        assert!(cookie.name().starts_with(NAME), "{cookie}");
        assert_eq!(cookie.value(), "");
    }
    false
}

struct World {
    server: SessionManager,
    /// Takes its sessions from up to four cookies.
    client: SessionManager,
    /// The value of the cookie of the session that the server has.
    good: String,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let server = SessionConfig::new(MemoryStore::new().with_clock(clock()));
    let server = manager(server);
    let cookie = CookieOptions::new(NAME).expect("the default name is a name");
    let client = CookieStore::new(KEYRING.clone()).with_clock(clock());
    let client = manager(SessionConfig::new(client).cookie(cookie.max_chunks(4)));
    let good = stored(&server);
    World {
        server,
        client,
        good,
    }
});

fn manager(config: SessionConfig) -> SessionManager {
    let builder = SessionManager::builder(KEYRING.clone()).session("session", config);
    let builder = builder.clock(clock()).entropy(Arc::new(Counter::default()));
    builder.build().expect("the configuration works")
}

/// The cookie of a session that the store has from now on.
fn stored(manager: &SessionManager) -> String {
    let sessions = manager.begin(&HeaderMap::new());
    let session: Session = at_once(sessions.session()).expect("a new session needs nothing");
    session.insert("user", "alice").expect("a text is a value");
    let mut response = HeaderMap::new();
    at_once(sessions.finish(&mut response)).expect("the store has room");
    let cookie = response[SET_COOKIE]
        .to_str()
        .expect("our cookies are visible ASCII");
    let cookie = cookie::Cookie::parse(cookie).expect("our cookies are cookies");
    cookie.value().to_owned()
}

/// The lines that are values of a header.
fn headers(lines: &[u8]) -> HeaderMap {
    let lines = lines.split(|&byte| byte == b'\n');
    let values = lines.filter_map(|line| HeaderValue::from_bytes(line).ok());
    values.map(|value| (COOKIE, value)).collect()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
