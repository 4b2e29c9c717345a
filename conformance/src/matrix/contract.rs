//! The sentences in the order of `sessions/src/store.rs`, and who reads them.
//!
//! A row says the same of some methods in some states. The rows of a sentence go from the general
//! to the particular: the later one counts.

mod calls;
mod index;
mod store;

use super::{
    Cell, Description, Method, Row, Sentence,
    State::{self, Absent, Deleted, Down, Expired, Full, Hanging, Live, LostAnswer, Unreadable},
};

/// The sentences of the contract that promise something.
pub fn contract() -> impl Iterator<Item = &'static Sentence> {
    [store::CONTRACT, calls::CONTRACT, index::CONTRACT]
        .into_iter()
        .flatten()
}

/// The sentences in the documentation of the contract that promise nothing of their own.
pub const DESCRIPTIONS: &[Description] = &[
    describes(
        "SessionStore",
        "Keeps session records for a backend.",
        "a title; what it promises is the contract below it",
    ),
    describes(
        "SessionStore",
        "This is the whole of what a backend implements: bytes in, bytes out, under a key that cannot hold a path, a quote or a wildcard.",
        "speaks of the types, which the compiler and the tests of `StoreKey` check",
    ),
    describes(
        "SessionStore",
        "Cookies, signatures, serialization, encryption and the merging of concurrent changes happen above it; an application calls [`Session`](crate::Session) instead.",
        "speaks of the core and not of a store",
    ),
    describes(
        "SessionStore",
        "The crate `sessionkit-conformance` tests every sentence below.",
        "speaks of the kit: this page and its tests are the proof",
    ),
    describes(
        "SessionStore",
        "Every call is about one key, and a store needs nothing but a compare-and-swap on it.",
        "says what a backend has to offer, and asks nothing of the store",
    ),
    describes(
        "SessionStore",
        "A store may rely on the application's clock not to move by more than a minute while one call is under way.",
        "a promise to the store, which the kit keeps: no case moves the clock by more during a call",
    ),
    describes(
        "SessionStore",
        "A backend may remove an expired record at any time: by itself, or in a call of any kind, a load included.",
        "allows a backend something: the kit passes right stores that do it, in loads, in creates and by themselves",
    ),
    describes(
        "SessionStore",
        "Stores are shared as `Arc<dyn SessionStore>`.",
        "speaks of the type: every case holds its store so",
    ),
    describes(
        "capabilities",
        "What this store can do.",
        "a title; M02 and the cases with a need hold a store to each of the values",
    ),
    describes(
        "renew",
        "Only a client-side store has more to do.",
        "says for whom the sentences before it are",
    ),
    describes(
        "try_sweep",
        "As provided, everybody sweeps.",
        "speaks of the provided method, which the core's tests call",
    ),
    describes(
        "has_made",
        "A session manager tries the few first tokens of a request for which this is so, and removes no cookie that is somebody else's.",
        "speaks of the core, whose tests have a manager that is sent foreign cookies",
    ),
    describes(
        "has_made",
        "As provided, every token is: those of a server-side store were verified before they come here.",
        "speaks of the provided method, which a server-side store leaves as it is",
    ),
    describes(
        "SubjectIndex",
        "Finds and ends the sessions of one subject.",
        "a title; what it promises is in the sentences of the methods",
    ),
];

const fn describes(item: &'static str, text: &'static str, reason: &'static str) -> Description {
    Description { item, text, reason }
}

/// A row of cells that these cases read.
const fn read(methods: &'static [Method], states: &'static [State], cases: &'static str) -> Row {
    let cell = Cell::Cases(cases);
    Row {
        methods,
        states,
        cell,
    }
}

/// A row of cells that no case reads, for a reason.
const fn none(methods: &'static [Method], states: &'static [State], reason: &'static str) -> Row {
    let cell = Cell::Reason(reason);
    Row {
        methods,
        states,
        cell,
    }
}

/// The states of a record.
const RECORD: &[State] = &[Absent, Live, Expired, Deleted, Unreadable];
/// Those in which there is nothing to see.
const GONE: &[State] = &[Absent, Expired, Deleted];
/// The states of the backend.
const FAULTS: &[State] = &[Full, Down, Hanging, LostAnswer];

const FAILS: &str = "where the backend fails, the call fails before this matters; what it may answer and leave behind is in the sentences of *Failed* and *Bounded*";
const APART: &str = "whatever lies in another namespace is as if it were not there: the sentence of *Separate* has these calls";
const WORKS: &str = "the backend works";
const WHOEVER_ASKS: &str = "the fault is the backend's, whoever asks";
const NO_RECORD: &str = "the call names no record";
const NO_SESSION: &str = "there is no live record that this could be said of";
const NOT_READABLE: &str = "what cannot be read has no field that could be compared; what the calls make of it is in the sentences of `Corrupt`";
