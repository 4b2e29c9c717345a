use std::{collections::BTreeMap, fmt, time::Duration};

/// What the workers of a soak have seen.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Calls that succeeded.
    pub operations: u64,
    /// Calls that their caller dropped before they ended.
    pub dropped: u64,
    /// Sessions that were begun and ended.
    pub sessions: u64,
    /// Errors by their kind.
    pub errors: BTreeMap<String, u64>,
    /// Sessions that were not as the last acknowledged change had left them.
    pub lost_updates: u64,
    /// Sessions that were there after their end.
    pub seen_again: u64,
    /// Records of another session than the one that was asked for.
    pub foreign_answers: u64,
    /// Errors that said that nothing had changed, or that somebody else had changed the session, when
    /// that was not so.
    pub false_errors: u64,
}

impl Counts {
    /// Whether nothing went wrong but calls that said so.
    #[must_use]
    pub fn is_clean(&self) -> bool {
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
pub struct Recoveries(BTreeMap<&'static str, Vec<Duration>>);

impl Recoveries {
    /// Notes how long it took after a fault.
    pub fn add(&mut self, fault: &'static str, took: Duration) {
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
