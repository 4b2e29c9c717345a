use std::fmt;

use futures_util::future::BoxFuture;
use sessionkit::{Capabilities, Custody, Durability, Sweep, TimeSource};

use crate::{Context, Outcome, cases};

/// One clause of the contract, as a test that runs against any store.
pub struct Case {
    /// The name of its test: the id and a sentence, such as `l01_create_then_load_is_equal`.
    pub name: &'static str,
    /// The part of the contract that it belongs to.
    pub group: Group,
    /// The sentence of the contract that it proves, in the contract's words.
    pub contract: &'static str,
    /// What users suffer when a store breaks it.
    pub why: &'static str,
    /// What the store has to be for the case to apply.
    pub needs: &'static [Need],
    /// Whether the seed determines the sequence of calls: one task makes them, and none depends on a
    /// random choice of the store.
    pub sequential: bool,
    pub(crate) run: for<'a> fn(&'a Context) -> BoxFuture<'a, Outcome>,
}

impl Case {
    /// The stable id, such as `L01`.
    #[must_use]
    pub fn id(&self) -> String {
        self.name[..3].to_uppercase()
    }

    /// The sentence in its name.
    #[must_use]
    pub fn sentence(&self) -> String {
        self.name[4..].replace('_', " ")
    }

    /// Why the case does not apply to a store with these capabilities, if it does not.
    #[must_use]
    pub fn inapplicable(
        &self,
        capabilities: &Capabilities,
        subjects: bool,
    ) -> Option<&'static str> {
        self.needs
            .iter()
            .find(|need| !need.met(capabilities, subjects))
            .map(|need| need.reason())
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Case").field(&self.name).finish()
    }
}

/// What a store has to be for a case to apply. What the harness has to offer shows when the case
/// asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// The store keeps the records.
    Server,
    /// The client keeps the records.
    Client,
    /// The store compares revisions.
    CompareAndSwap,
    /// The store keeps an index by subject.
    Subjects,
    /// The store keeps no index by subject.
    NoSubjects,
    /// Expired records go with a call of `sweep`.
    ExplicitSweep,
    /// The backend removes expired records by itself.
    NativeSweep,
    /// There is nothing to sweep.
    NoSweep,
    /// Records outlive the process.
    Durable,
    /// Records expire by the application's clock.
    ApplicationTime,
    /// No handle answers from a cache.
    Fresh,
}

impl Need {
    fn met(self, capabilities: &Capabilities, subjects: bool) -> bool {
        match self {
            Self::Server => capabilities.custody == Custody::Server,
            Self::Client => capabilities.custody == Custody::Client,
            Self::CompareAndSwap => capabilities.compare_and_swap,
            Self::Subjects => subjects,
            Self::NoSubjects => !subjects,
            Self::ExplicitSweep => capabilities.sweep == Sweep::Explicit,
            Self::NativeSweep => capabilities.sweep == Sweep::Native,
            Self::NoSweep => capabilities.sweep == Sweep::Unsupported,
            Self::Durable => capabilities.durability > Durability::Process,
            Self::ApplicationTime => capabilities.time_source == TimeSource::Application,
            Self::Fresh => capabilities.staleness.is_zero(),
        }
    }

    /// The stores that meet it.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Server => "server-side",
            Self::Client => "client-side",
            Self::CompareAndSwap => "with compare-and-swap",
            Self::Subjects => "with an index by subject",
            Self::NoSubjects => "without an index by subject",
            Self::ExplicitSweep => "with an explicit sweep",
            Self::NativeSweep => "with a native sweep",
            Self::NoSweep => "without a sweep",
            Self::Durable => "durable",
            Self::ApplicationTime => "by the application's clock",
            Self::Fresh => "without a cache",
        }
    }

    /// Why a case with this need does not apply to a store that does not meet it.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Server => "the client keeps the records",
            Self::Client => "the server keeps the records",
            Self::CompareAndSwap => "the store declares no comparison of revisions",
            Self::Subjects => "the store declares no index by subject",
            Self::NoSubjects => "the store has an index by subject",
            Self::ExplicitSweep => "the store has no sweep of its own",
            Self::NativeSweep => "the backend does not remove expired records by itself",
            Self::NoSweep => "the store has something to sweep",
            Self::Durable => "the store declares that records end with the process",
            Self::ApplicationTime => "records expire by the clock of the server",
            Self::Fresh => "the store declares a cache",
        }
    }
}

/// A part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Group {
    /// From create to delete.
    Life,
    /// What was stored comes back.
    Fid,
    /// Tokens and keys.
    Key,
    /// Expiry.
    Time,
    /// Calls at the same time.
    Conc,
    /// Futures that are dropped.
    Canc,
    /// Namespaces, and what else lives in the backend.
    Iso,
    /// Limits and configuration.
    Lim,
    /// Failing backends.
    Flt,
    /// Secrets.
    Sec,
    /// Removal of expired records.
    Sweep,
    /// The index by subject.
    List,
    /// Sessions of an application, through a manager on the store.
    Flow,
    /// Records that the client keeps.
    Client,
    /// The kit, and what a store declares of itself.
    Meta,
}

impl Group {
    /// All groups in the order of the catalogue.
    pub const ALL: [Self; 15] = [
        Self::Life,
        Self::Fid,
        Self::Key,
        Self::Time,
        Self::Conc,
        Self::Canc,
        Self::Iso,
        Self::Lim,
        Self::Flt,
        Self::Sec,
        Self::Sweep,
        Self::List,
        Self::Flow,
        Self::Client,
        Self::Meta,
    ];

    /// What it is about.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Life => "from create to delete",
            Self::Fid => "what was stored comes back",
            Self::Key => "tokens and keys",
            Self::Time => "expiry",
            Self::Conc => "calls at the same time",
            Self::Canc => "calls that are dropped",
            Self::Iso => "namespaces, and what else lives in the backend",
            Self::Lim => "limits and configuration",
            Self::Flt => "failing backends",
            Self::Sec => "secrets",
            Self::Sweep => "removal of what has expired",
            Self::List => "the sessions of a subject",
            Self::Flow => "sessions of an application, through a manager on the store",
            Self::Client => "sessions that the client keeps",
            Self::Meta => "the kit, and what a store says of itself",
        }
    }

    /// The name in reports and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Life => "LIFE",
            Self::Fid => "FID",
            Self::Key => "KEY",
            Self::Time => "TIME",
            Self::Conc => "CONC",
            Self::Canc => "CANC",
            Self::Iso => "ISO",
            Self::Lim => "LIM",
            Self::Flt => "FLT",
            Self::Sec => "SEC",
            Self::Sweep => "SWEEP",
            Self::List => "LIST",
            Self::Flow => "FLOW",
            Self::Client => "CLIENT",
            Self::Meta => "META",
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Every case, in the order of the catalogue.
pub fn registry() -> impl Iterator<Item = &'static Case> {
    cases::ALL.iter().copied().flatten()
}

/// The case with this id (`L01`, in any letter case) or name.
#[must_use]
pub fn find_case(name: &str) -> Option<&'static Case> {
    registry().find(|case| case.name == name || case.name[..3].eq_ignore_ascii_case(name))
}
