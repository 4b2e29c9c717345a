use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
};

use sessionkit::{Clock, MemoryStore, Result, SessionStore};

use crate::{
    Opener,
    url::{Address, invalid},
};

const RESERVED: &str = "reserved_for_subjects";

/// The stores with a namespace that this process has open.
static OPEN: LazyLock<Mutex<HashMap<String, Shared>>> = LazyLock::new(Mutex::default);

struct Shared {
    store: Weak<MemoryStore>,
    limits: Limits,
    clock: Option<Arc<dyn Clock>>,
}

/// What a URL says of the store's size.
#[derive(Clone, Copy, PartialEq)]
struct Limits {
    max_sessions: Option<usize>,
    max_bytes: Option<usize>,
    reserved: Option<u8>,
}

pub(crate) fn open(address: Address, opener: &Opener) -> Result<Arc<dyn SessionStore>> {
    if !address.rest().is_empty() {
        return Err(invalid("nothing but options may follow `memory:`"));
    }
    let options = address.options(&["namespace", "max_sessions", "max_bytes", RESERVED])?;
    let limits = Limits {
        max_sessions: options.parse("max_sessions")?,
        max_bytes: options.parse("max_bytes")?,
        reserved: options.parse(RESERVED)?,
    };
    if limits.reserved.is_some_and(|percent| percent > 100) {
        return Err(invalid(
            "the option reserved_for_subjects of the store's URL is a percentage up to 100",
        ));
    }
    let clock = opener.injected_clock();
    let Some(namespace) = opener.namespace_in(&options)? else {
        return Ok(Arc::new(new(limits, clock)));
    };
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.retain(|_, shared| shared.store.strong_count() > 0);
    if let Some(shared) = open.get(namespace)
        && let Some(store) = shared.store.upgrade()
    {
        if shared.limits != limits || !same(shared.clock.as_ref(), clock) {
            return Err(invalid(
                "the memory store of this namespace is open with another clock or another size",
            ));
        }
        return Ok(store);
    }
    let store = Arc::new(new(limits, clock));
    let shared = Shared {
        store: Arc::downgrade(&store),
        limits,
        clock: clock.cloned(),
    };
    open.insert(namespace.to_owned(), shared);
    Ok(store)
}

fn new(limits: Limits, clock: Option<&Arc<dyn Clock>>) -> MemoryStore {
    let mut store = MemoryStore::new();
    if let Some(clock) = clock {
        store = store.with_clock(Arc::clone(clock));
    }
    if let Some(max_sessions) = limits.max_sessions {
        store = store.with_max_sessions(max_sessions);
    }
    if let Some(max_bytes) = limits.max_bytes {
        store = store.with_max_bytes(max_bytes);
    }
    if let Some(percent) = limits.reserved {
        store = store.with_reserved_for_subjects(percent);
    }
    store
}

fn same(one: Option<&Arc<dyn Clock>>, other: Option<&Arc<dyn Clock>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}
