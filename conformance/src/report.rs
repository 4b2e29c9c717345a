//! What came of a run, for people and for machines.

mod badge;
mod json;
mod junit;
mod markdown;
mod matrix;
mod pretty;

use std::time::Duration;

use sessionkit::Capabilities;

use crate::{Case, CaseReport, Group, Verdict, context::NO_HOOK};

pub use badge::badge;
pub use json::json;
pub use junit::junit;
pub use markdown::catalogue;
pub use matrix::matrix;
pub use pretty::{list, pretty};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// The seed of the run.
    pub seed: u64,
    /// The command that ran, without its arguments.
    pub command: String,
    /// The stores, in the order in which they were named.
    pub stores: Vec<StoreReport>,
}

/// What came of all cases on one store.
#[derive(Clone, Debug)]
pub struct StoreReport {
    /// The name of the store: its URL without a password.
    pub name: String,
    /// What the store declares, or `None` when it cannot be opened.
    pub capabilities: Option<Capabilities>,
    /// Whether a waiver is stale.
    pub stale: bool,
    /// How long the cases took together, one after the other.
    pub duration: Duration,
    /// The cases in the order of the catalogue.
    pub cases: Vec<CaseReport>,
}

/// What an application may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Level {
    /// Not even the core of the contract.
    None,
    /// One call after the other is answered right.
    Core,
    /// So are many at a time, and those that are given up.
    Concurrent,
    /// A backend that fails does no harm.
    Faults,
    /// Neither does one that is copied, nor a log.
    Secure,
}

impl Level {
    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Core => "core",
            Self::Concurrent => "concurrent",
            Self::Faults => "faults",
            Self::Secure => "secure",
        }
    }

    /// The level with this name, in any case of letters; the lowest one has none.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let mut levels = Self::ALL.into_iter();
        levels.find(|level| level.name().eq_ignore_ascii_case(name))
    }

    /// Whether a group is part of this level or of none.
    pub(crate) fn includes(self, group: Group) -> bool {
        let mut higher = Self::ALL.into_iter().filter(|level| *level > self);
        !higher.any(|level| level.groups().contains(&group))
    }

    const ALL: [Self; 4] = [Self::Core, Self::Concurrent, Self::Faults, Self::Secure];

    const fn groups(self) -> &'static [Group] {
        use Group::{Canc, Conc, Fid, Flow, Flt, Iso, Key, Life, Lim, Meta, Sec, Time};
        match self {
            Self::None => &[],
            Self::Core => &[Life, Fid, Key, Time, Iso, Lim, Meta],
            Self::Concurrent => &[Conc, Canc, Flow],
            Self::Faults => &[Flt],
            Self::Secure => &[Sec],
        }
    }
}

impl StoreReport {
    /// The highest level all groups of which hold: every case of them passes or does not apply to
    /// the store, and where the harness lacks a hook, other cases of the group have run.
    #[must_use]
    pub fn level(&self) -> Level {
        let holds = |group: &Group| {
            let cases = self
                .cases
                .iter()
                .filter(|report| report.case.group == *group);
            let verdicts: Vec<_> = cases.map(|report| &report.verdict).collect();
            let passed = verdicts.iter().any(|verdict| **verdict == Verdict::Pass);
            let fine = |verdict: &&Verdict| match verdict {
                Verdict::Pass => true,
                Verdict::Skip(reason) => passed || !reason.starts_with(NO_HOOK),
                _ => false,
            };
            !verdicts.is_empty() && verdicts.iter().all(fine)
        };
        Level::ALL
            .into_iter()
            .take_while(|level| level.groups().iter().all(holds))
            .last()
            .unwrap_or(Level::None)
    }

    /// How many cases have this verdict, by its word.
    #[must_use]
    pub fn count(&self, word: &str) -> usize {
        let has = |report: &&CaseReport| report.verdict.word() == word;
        self.cases.iter().filter(has).count()
    }
}

impl RunReport {
    /// The exit status: 0 when every store conforms, 1 when a case failed, 3 when a waiver is stale,
    /// and 2 when the harness broke or a case was inconclusive.
    #[must_use]
    pub fn status(&self) -> u8 {
        let any = |word: &str| self.stores.iter().any(|store| store.count(word) > 0);
        if any("fail") {
            1
        } else if self.stores.iter().any(|store| store.stale) {
            3
        } else if any("error") || any("inconclusive") {
            2
        } else {
            0
        }
    }

    /// The command that runs one case on one store again.
    #[must_use]
    pub fn again(&self, store: &StoreReport, case: &Case) -> String {
        let (command, name, id) = (&self.command, &store.name, case.id());
        format!("{command} '{name}' --case {id} --seed {}", self.seed)
    }
}

/// The words of the verdicts, in the order of reports.
pub(crate) const VERDICTS: [&str; 6] = ["pass", "fail", "skip", "waived", "inconclusive", "error"];
