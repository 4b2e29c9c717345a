//! What was seen.

use std::{collections::BTreeMap, fmt, time::Duration};

#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Calls that succeeded.
    pub(crate) operations: u64,
    /// Calls that their caller dropped before they ended.
    pub(crate) dropped: u64,
    pub(crate) sessions: u64,
    pub(crate) errors: BTreeMap<String, u64>,
    /// Sessions that were not as the last acknowledged change had left them.
    pub(crate) lost_updates: u64,
    pub(crate) seen_again: u64,
    pub(crate) foreign_answers: u64,
    /// Errors that said that nothing had changed, or that somebody else had changed the session, when
    /// that was not so.
    pub(crate) false_errors: u64,
}

impl Counts {
    pub(crate) fn is_clean(&self) -> bool {
        self.lost_updates + self.seen_again + self.foreign_answers + self.false_errors == 0
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "operations that succeeded      {:>9}", self.operations)?;
        writeln!(f, "calls dropped by the caller    {:>9}", self.dropped)?;
        writeln!(f, "sessions begun and ended       {:>9}", self.sessions)?;
        for (kind, count) in &self.errors {
            writeln!(f, "errors, {kind:<22} {count:>9}")?;
        }
        writeln!(f, "acknowledged updates lost      {:>9}", self.lost_updates)?;
        writeln!(f, "deleted sessions seen again    {:>9}", self.seen_again)?;
        writeln!(
            f,
            "answers of another request     {:>9}",
            self.foreign_answers
        )?;
        writeln!(f, "errors that were not so        {:>9}", self.false_errors)
    }
}

/// How long it took, for each fault, until every worker had an answer again.
#[derive(Debug, Default)]
pub(crate) struct Recoveries(BTreeMap<&'static str, Vec<Duration>>);

impl Recoveries {
    pub(crate) fn add(&mut self, fault: &'static str, took: Duration) {
        self.0.entry(fault).or_default().push(took);
    }
}

impl fmt::Display for Recoveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (fault, times) in &self.0 {
            let mut times = times.clone();
            times.sort();
            let (count, median, most) =
                (times.len(), times[times.len() / 2], times[times.len() - 1]);
            writeln!(
                f,
                "{fault:<27} {count:>3} times, recovery: median {median:>8.1?}, longest {most:>8.1?}"
            )?;
        }
        Ok(())
    }
}
