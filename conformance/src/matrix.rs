//! The contract as a matrix: every sentence of it, for every method that it speaks of, in every
//! state that the method can meet. A cell names the cases that read it, or says why there is none.

mod contract;

use std::fmt;

pub use contract::{DESCRIPTIONS, contract};

/// What an application does with a store: the methods of
/// [`SessionStore`](sessionkit::SessionStore) and [`SubjectIndex`](sessionkit::SubjectIndex), and
/// what happens to a store before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Method {
    /// Opening a handle.
    Open,
    /// `capabilities`.
    Capabilities,
    /// `create`.
    Create,
    /// `load`.
    Load,
    /// `update`.
    Update,
    /// `renew`.
    Renew,
    /// `touch`.
    Touch,
    /// `delete` without a revision.
    Delete,
    /// `delete` at a revision.
    DeleteAt,
    /// `sweep`.
    Sweep,
    /// `try_sweep`.
    TrySweep,
    /// `ping`.
    Ping,
    /// `subjects`.
    Subjects,
    /// `has_made`.
    HasMade,
    /// `list` of the index.
    List,
    /// `revoke` of the index.
    Revoke,
    /// `revoke_all` of the index.
    RevokeAll,
    /// The `Debug` of a handle.
    Debug,
    /// Dropping a handle.
    Drop,
}

impl Method {
    /// All methods, in the order of the contract.
    pub const ALL: [Self; 19] = [
        Self::Open,
        Self::Capabilities,
        Self::Create,
        Self::Load,
        Self::Update,
        Self::Renew,
        Self::Touch,
        Self::Delete,
        Self::DeleteAt,
        Self::Sweep,
        Self::TrySweep,
        Self::Ping,
        Self::Subjects,
        Self::HasMade,
        Self::List,
        Self::Revoke,
        Self::RevokeAll,
        Self::Debug,
        Self::Drop,
    ];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Capabilities => "capabilities",
            Self::Create => "create",
            Self::Load => "load",
            Self::Update => "update",
            Self::Renew => "renew",
            Self::Touch => "touch",
            Self::Delete => "delete(None)",
            Self::DeleteAt => "delete(Some)",
            Self::Sweep => "sweep",
            Self::TrySweep => "try_sweep",
            Self::Ping => "ping",
            Self::Subjects => "subjects",
            Self::HasMade => "has_made",
            Self::List => "list",
            Self::Revoke => "revoke",
            Self::RevokeAll => "revoke_all",
            Self::Debug => "Debug",
            Self::Drop => "drop",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a call meets: the record it is about, the backend, and who else is there.
///
/// For a method that is about a namespace or a subject and not about one key, a state of the record
/// is that of one of the records there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum State {
    /// Nothing was ever stored.
    Absent,
    /// A live record.
    Live,
    /// A record that has expired and was not swept.
    Expired,
    /// A record that was there and was removed.
    Deleted,
    /// Something that cannot be read as a record.
    Unreadable,
    /// The backend is full.
    Full,
    /// The backend is down.
    Down,
    /// The backend hangs.
    Hanging,
    /// The answer to this call is lost, and only this one.
    LostAnswer,
    /// Another handle has written the record.
    SecondHandle,
    /// Another namespace has a record under the same key, or of the same subject.
    OtherNamespace,
}

impl State {
    /// All states.
    pub const ALL: [Self; 11] = [
        Self::Absent,
        Self::Live,
        Self::Expired,
        Self::Deleted,
        Self::Unreadable,
        Self::Full,
        Self::Down,
        Self::Hanging,
        Self::LostAnswer,
        Self::SecondHandle,
        Self::OtherNamespace,
    ];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Live => "live",
            Self::Expired => "expired",
            Self::Deleted => "deleted",
            Self::Unreadable => "unreadable",
            Self::Full => "full",
            Self::Down => "down",
            Self::Hanging => "hanging",
            Self::LostAnswer => "answer lost",
            Self::SecondHandle => "second handle",
            Self::OtherNamespace => "other namespace",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A sentence of the contract, and what reads it.
#[derive(Clone, Copy, Debug)]
pub struct Sentence {
    /// The trait or the method whose documentation it stands in.
    pub item: &'static str,
    /// The sentence in the words of the contract.
    pub text: &'static str,
    /// The methods that it speaks of.
    pub methods: &'static [Method],
    /// Who reads which cells; of two rows for one cell the later one counts.
    pub rows: &'static [Row],
}

impl Sentence {
    /// What stands in a cell, or `None` where nothing does.
    #[must_use]
    pub fn cell(&self, method: Method, state: State) -> Option<Cell> {
        let row = self.rows.iter().rev().find(|row| row.has(method, state))?;
        Some(row.cell)
    }

    /// Every cell of the sentence.
    pub fn cells(&self) -> impl Iterator<Item = (Method, State, Option<Cell>)> {
        self.methods.iter().flat_map(move |method| {
            State::ALL.map(|state| (*method, state, self.cell(*method, state)))
        })
    }
}

/// The same for some methods in some states.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    methods: &'static [Method],
    states: &'static [State],
    cell: Cell,
}

impl Row {
    /// The methods and the states that it names.
    pub fn named(&self) -> impl Iterator<Item = (Method, State)> {
        let states = self.states.iter();
        states.flat_map(|state| self.methods.iter().map(|method| (*method, *state)))
    }

    fn has(&self, method: Method, state: State) -> bool {
        self.methods.contains(&method) && self.states.contains(&state)
    }
}

/// What stands in a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// The ids of cases, with spaces between them.
    Cases(&'static str),
    /// Why there is no case.
    Reason(&'static str),
}

/// A sentence that promises nothing a case could read.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// The trait or the method whose documentation it stands in.
    pub item: &'static str,
    /// The sentence in the words of the contract.
    pub text: &'static str,
    /// What it is instead.
    pub reason: &'static str,
}
