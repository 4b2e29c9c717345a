use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
};

use sessionkit::{Clock, MemoryStore, Result, SessionStore};

use crate::{
    Opener,
    address::{Address, invalid},
};

/// The stores with a namespace that this process has open.
static OPEN: LazyLock<Mutex<HashMap<String, Shared>>> = LazyLock::new(Mutex::default);

struct Shared {
    store: Weak<MemoryStore>,
    max_sessions: Option<usize>,
    clock: Option<Arc<dyn Clock>>,
}

pub(crate) fn open(address: Address, opener: &Opener) -> Result<Arc<dyn SessionStore>> {
    if !address.rest().is_empty() {
        return Err(invalid("nothing but options may follow `memory:`"));
    }
    let options = address.options(&["namespace", "max_sessions"])?;
    let max_sessions = options.parse("max_sessions")?;
    let clock = opener.injected_clock();
    let Some(namespace) = opener.namespace_in(&options)? else {
        return Ok(Arc::new(new(max_sessions, clock)));
    };
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.retain(|_, shared| shared.store.strong_count() > 0);
    if let Some(shared) = open.get(namespace)
        && let Some(store) = shared.store.upgrade()
    {
        if shared.max_sessions != max_sessions || !same(shared.clock.as_ref(), clock) {
            return Err(invalid(
                "the memory store of this namespace is open with another clock or max_sessions",
            ));
        }
        return Ok(store);
    }
    let store = Arc::new(new(max_sessions, clock));
    let shared = Shared {
        store: Arc::downgrade(&store),
        max_sessions,
        clock: clock.cloned(),
    };
    open.insert(namespace.to_owned(), shared);
    Ok(store)
}

fn new(max_sessions: Option<usize>, clock: Option<&Arc<dyn Clock>>) -> MemoryStore {
    let mut store = MemoryStore::new();
    if let Some(clock) = clock {
        store = store.with_clock(Arc::clone(clock));
    }
    if let Some(max_sessions) = max_sessions {
        store = store.with_max_sessions(max_sessions);
    }
    store
}

fn same(one: Option<&Arc<dyn Clock>>, other: Option<&Arc<dyn Clock>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}
