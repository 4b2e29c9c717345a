use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header::COOKIE};
use sessionkit::{
    ErrorKind, MemoryStore, Origin, Record, Session, SessionConfig, SessionManager, SessionStore,
};

use crate::support::{Counter, KEYRING, assert_kind, at_once, clock, cookie_name, record, token};

/// The cookie of [`token`].
const COOKIE_OF_TOKEN: &str = "__Host-id=ASCoxrwAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eH_U5VH2pTRvsBeHIA99qnjE8cjfRKo64_3otia8KdCJN";

/// A value that no property has under this key before.
const KEY: &str = "fuzz";

/// The data of a session as a store gives them back: they are read or corrupt, whatever a handler
/// asks of them is a value or an error, and what is read is written to the same again.
pub fn payload(input: &[u8]) -> bool {
    let sealed = load(&world(input, true)).is_some();
    let world = world(input, false);
    let Some(session) = load(&world) else {
        return sealed;
    };
    ask(&session);
    let first = write(&world, &session, 1);
    let session = load(&world).expect("what was written is read");
    write(&world, &session, 2);
    let session = load(&world).expect("what was written is read");
    let second = write(&world, &session, 1);
    assert_eq!(first.data, second.data);
    true
}

struct World {
    store: Arc<MemoryStore>,
    manager: SessionManager,
}

/// A store with one record, which has these data.
fn world(data: &[u8], is_sealed: bool) -> World {
    let store = Arc::new(MemoryStore::new().with_clock(clock()));
    let mut record = record(data);
    if is_sealed {
        // As the session that the seed was taken from.
        (record.subject, record.label) = Default::default();
    }
    at_once(store.create(token(&cookie_name()), &record)).expect("the store has room");
    let config = SessionConfig::new(Arc::clone(&store));
    let config = match is_sealed {
        true => config,
        false => config.insecure_readable_at_rest(),
    };
    let builder = SessionManager::builder(KEYRING.clone()).session("session", config);
    let builder = builder.clock(clock()).entropy(Arc::new(Counter::default()));
    let manager = builder.build().expect("the configuration works");
    World { store, manager }
}

/// The session, if the data are one's that has the secret of [`token`].
fn load(world: &World) -> Option<Session> {
    let cookie = HeaderValue::from_static(COOKIE_OF_TOKEN);
    let sessions = world
        .manager
        .begin(&HeaderMap::from_iter([(COOKIE, cookie)]));
    match at_once(sessions.session()) {
        Ok(session) => (session.origin() == Origin::Stored).then_some(session),
        Err(error) => {
            assert_kind(&error, ErrorKind::Corrupt);
            None
        }
    }
}

/// Every question of a handler about every value.
fn ask(session: &Session) {
    for key in session.keys() {
        let key = key.as_str();
        assert!(session.contains(key));
        let text = session.get::<String>(key).map(|_| ());
        let number = session.get::<u8>(key).map(|_| ());
        let pairs = session.get::<Vec<(String, f64)>>(key).map(|_| ());
        let map = session.get::<std::collections::BTreeMap<String, Option<bool>>>(key);
        for answer in [text, number, pairs, map.map(|_| ())] {
            if let Err(error) = answer {
                assert_kind(&error, ErrorKind::InvalidValue);
            }
        }
    }
    for queue in ["notices", "default", ""] {
        if let Err(error) = session.flashes_from::<String>(queue) {
            assert_kind(&error, ErrorKind::InvalidValue);
        }
    }
}

/// What the store has once the session has this value as well.
fn write(world: &World, session: &Session, value: u8) -> Record {
    session.insert(KEY, &value).expect("a number is a value");
    at_once(session.save()).expect("nobody else writes");
    let stored = at_once(world.store.load(&token(&cookie_name())));
    let stored = stored.expect("memory does not fail");
    stored.expect("the session was saved")
}
