use std::{collections::HashMap, fmt};

use sessionkit::{Revision, StoreKey, Timestamp};

use super::{Deepest, Outcome, Search};
use crate::history::{Answer, Call, History, Operation, Version};

/// A report shows at most this many calls, the last ones.
const SHOWN: usize = 24;

/// Answers that no order of the calls explains, cut down to what a person has to read: the shortest
/// beginning of the history that fails already, without the calls that only looked and do not
/// matter.
///
/// `Display` tells the story, with letters for keys and numbers for revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    operations: Vec<Operation>,
    order: Vec<usize>,
    stored: Option<Version>,
    total: usize,
}

impl Violation {
    /// Cuts down the history of one key that is known to be a violation.
    pub(super) fn find(history: History, budget: usize) -> Self {
        let total = history.operations.len();
        let fails =
            |history: &History| matches!(Search::new(history, budget).run(), Outcome::Stuck(_));
        let history = shortest_prefix(history, fails);
        let history = without_onlookers(history, fails);
        let (order, stored) = match Search::new(&history, budget).run() {
            Outcome::Stuck(Deepest { order, state, .. }) => (order, state.record),
            _ => (Vec::new(), None),
        };
        Self {
            operations: history.operations,
            order,
            stored,
            total,
        }
    }

    /// The calls that cannot be explained, in the order in which they began.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The calls that found no place in the longest order that was found.
    pub fn unexplained(&self) -> impl Iterator<Item = &Operation> {
        self.unplaced().map(|(_, operation)| operation)
    }

    fn unplaced(&self) -> impl Iterator<Item = (usize, &Operation)> {
        self.operations
            .iter()
            .enumerate()
            .filter(|(index, operation)| {
                operation.answer != Answer::Unknown && !self.order.contains(index)
            })
    }
}

/// Beginnings of an explainable history are explainable, so the shortest that is not can be found by
/// halving.
fn shortest_prefix(history: History, fails: impl Fn(&History) -> bool) -> History {
    let mut ends: Vec<u64> = history.operations.iter().map(|o| o.returned).collect();
    ends.sort_unstable();
    let shorter = ends.partition_point(|&end| !fails(&prefix(&history, end)));
    match ends.get(shorter) {
        Some(&end) => prefix(&history, end),
        None => history,
    }
}

/// The history as it was known at a logical time.
fn prefix(history: &History, end: u64) -> History {
    let known = |operation: &Operation| {
        let mut operation = *operation;
        if operation.returned > end {
            operation.answer = Answer::Unknown;
            operation.returned = u64::MAX;
            operation.latest = Timestamp::MAX;
        }
        operation
    };
    History {
        operations: history
            .operations
            .iter()
            .filter(|operation| operation.invoked <= end)
            .map(known)
            .filter(|operation| operation.call != Call::Load || operation.answer != Answer::Unknown)
            .collect(),
        granularity: history.granularity,
    }
}

/// Leaves out calls that changed nothing, as long as the rest cannot be explained either: many at a
/// time first, because each attempt is a search.
fn without_onlookers(mut history: History, fails: impl Fn(&History) -> bool) -> History {
    let mut size = history.operations.len();
    while size > 0 {
        let mut end = history.operations.len();
        while end > 0 {
            let range = end.saturating_sub(size)..end;
            end = range.start;
            let mut index = 0..;
            let mut shorter = history.clone();
            shorter.operations.retain(|operation| {
                let inside = index.next().is_some_and(|index| range.contains(&index));
                !(inside && changed_nothing(operation))
            });
            if shorter.operations.len() < history.operations.len() && fails(&shorter) {
                history = shorter;
            }
        }
        size /= 2;
    }
    history
}

fn changed_nothing(operation: &Operation) -> bool {
    matches!(
        operation.answer,
        Answer::Found(_) | Answer::Ended(false) | Answer::Failed(_)
    )
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Names::of(&self.operations);
        let hidden = self.operations.len().saturating_sub(SHOWN);
        writeln!(
            f,
            "no order of these calls explains their answers ({} of {} recorded; each took effect \
             between its two times)",
            self.operations.len(),
            self.total
        )?;
        if hidden > 0 {
            writeln!(f, "  ... {hidden} earlier calls")?;
        }
        for (index, operation) in self.operations.iter().enumerate().skip(hidden) {
            names.write_line(f, index, operation)?;
        }
        f.write_str("the longest order that fits is")?;
        for index in &self.order {
            write!(f, " #{}", index + 1)?;
        }
        f.write_str("\nit leaves ")?;
        let key = self.operations.first().map(|operation| operation.key);
        let key = key.map_or_else(String::new, |key| names.key(key));
        match self.stored {
            Some(version) => write!(f, "{key} = {}", names.version(version))?,
            None => write!(f, "nothing under {key}")?,
        }
        f.write_str("\nand then these cannot have been answered so:")?;
        for (index, operation) in self.unplaced() {
            write!(f, "\n  #{} {}", index + 1, names.story(operation))?;
        }
        Ok(())
    }
}

/// Short names for what has none that a person could read: keys and revisions in the order in which
/// they appear.
struct Names {
    keys: HashMap<StoreKey, usize>,
    revisions: HashMap<Revision, usize>,
    /// What was written under a revision.
    contents: HashMap<Revision, u64>,
    /// What expiries are told in relation to, if they matter.
    start: Option<Timestamp>,
}

impl Names {
    fn of(operations: &[Operation]) -> Self {
        let mut names = Self {
            keys: HashMap::new(),
            revisions: HashMap::new(),
            contents: HashMap::new(),
            start: operations
                .first()
                .map(|operation| operation.earliest)
                .filter(|_| time_matters(operations)),
        };
        for operation in operations {
            let next = names.keys.len();
            names.keys.entry(operation.key).or_insert(next);
            for revision in revisions(operation) {
                let next = names.revisions.len() + 1;
                names.revisions.entry(revision).or_insert(next);
            }
            if let Call::Create(new) | Call::Update { new, .. } = operation.call {
                names.contents.insert(new.revision, new.contents);
            }
        }
        names
    }

    fn write_line(
        &self,
        f: &mut fmt::Formatter<'_>,
        index: usize,
        operation: &Operation,
    ) -> fmt::Result {
        let returned = match operation.returned {
            u64::MAX => "?".to_owned(),
            time => time.to_string(),
        };
        writeln!(
            f,
            "  {:>5} {:>4} ..{returned:>4}  {}",
            format!("#{}", index + 1),
            operation.invoked,
            self.story(operation)
        )
    }

    fn story(&self, operation: &Operation) -> String {
        format!(
            "client {}: {} -> {}",
            operation.client,
            self.call(operation),
            self.answer(operation.answer)
        )
    }

    fn call(&self, operation: &Operation) -> String {
        let key = self.key(operation.key);
        match operation.call {
            Call::Create(new) => format!("create {key} = {}", self.version(new)),
            Call::Load => format!("load {key}"),
            Call::Update { expected, new } => format!(
                "update {key} from {} to {}",
                self.revision(expected),
                self.version(new)
            ),
            Call::Touch(expires_at) => format!("touch {key}{}", self.expiry(expires_at)),
            Call::Delete(None) => format!("delete {key}"),
            Call::Delete(Some(expected)) => {
                format!("delete {key} at {}", self.revision(expected))
            }
        }
    }

    fn answer(&self, answer: Answer) -> String {
        match answer {
            Answer::Done => "ok".to_owned(),
            Answer::Found(None) => "nothing".to_owned(),
            Answer::Ended(true) => "ended".to_owned(),
            Answer::Ended(false) => "nothing to end".to_owned(),
            Answer::Found(Some(version)) => self.version(version),
            Answer::Failed(kind) => format!("{kind:?}"),
            Answer::Unknown => "no answer".to_owned(),
        }
    }

    fn key(&self, key: StoreKey) -> String {
        match self.keys.get(&key) {
            Some(&index) if index < 26 => char::from(b'A' + index as u8).to_string(),
            Some(index) => format!("key {index}"),
            None => "a key of no call".to_owned(),
        }
    }

    fn version(&self, version: Version) -> String {
        let contents = self.contents.get(&version.revision);
        let foreign = if contents.is_some_and(|&contents| contents != version.contents) {
            " with other contents than were written"
        } else {
            ""
        };
        format!(
            "{}{foreign}{}",
            self.revision(version.revision),
            self.expiry(version.expires_at)
        )
    }

    /// In milliseconds from the beginning of the history.
    fn expiry(&self, expires_at: Timestamp) -> String {
        match self.start {
            Some(start) if expires_at < Timestamp::MAX => {
                let millis = expires_at.as_millis() - start.as_millis();
                format!(" until {millis:+} ms")
            }
            _ => String::new(),
        }
    }

    fn revision(&self, revision: Revision) -> String {
        match self.revisions.get(&revision) {
            Some(number) => format!("r{number}"),
            None => "a revision of no call".to_owned(),
        }
    }
}

/// Whether an expiry was changed, or came within the history.
fn time_matters(operations: &[Operation]) -> bool {
    let answered = |operation: &&Operation| operation.answer != Answer::Unknown;
    let latest = operations.iter().filter(answered).map(|o| o.latest).max();
    operations.iter().any(|operation| match operation.call {
        Call::Touch(_) => true,
        Call::Create(new) | Call::Update { new, .. } => Some(new.expires_at) <= latest,
        Call::Load | Call::Delete(_) => false,
    })
}

fn revisions(operation: &Operation) -> Vec<Revision> {
    let of = |version: Version| version.revision;
    match (operation.call, operation.answer) {
        (Call::Create(new), _) => vec![of(new)],
        (Call::Update { expected, new }, _) => vec![expected, of(new)],
        (Call::Delete(Some(expected)), _) => vec![expected],
        (_, Answer::Found(Some(version))) => vec![of(version)],
        _ => Vec::new(),
    }
}
