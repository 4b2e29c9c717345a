use std::fmt;

use sessionkit::{Error, ErrorKind, Record, Result as StoreResult, Timestamp};

/// What a case returns.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a case did not pass.
#[derive(Debug)]
pub struct Failure(Verdict);

impl Failure {
    /// The store does something else than the contract says.
    pub fn new(expected: impl fmt::Display, actual: impl fmt::Display) -> Self {
        Self(Verdict::Fail {
            expected: expected.to_string(),
            actual: actual.to_string(),
        })
    }

    /// The case does not apply, and this is why.
    pub fn skip(reason: impl Into<String>) -> Self {
        Self(Verdict::Skip(reason.into()))
    }

    /// The case ran and proved nothing, for instance because no calls overlapped.
    pub fn inconclusive(reason: impl Into<String>) -> Self {
        Self(Verdict::Inconclusive(reason.into()))
    }

    /// The harness broke, not the store.
    pub fn error(reason: impl Into<String>) -> Self {
        Self(Verdict::Error(reason.into()))
    }

    pub(crate) const fn from_verdict(verdict: Verdict) -> Self {
        Self(verdict)
    }

    /// The same with the call's name, where the case did not give it.
    pub(crate) fn named(self, name: impl FnOnce(&str) -> Option<&'static str>) -> Self {
        match self.0 {
            Verdict::Fail { expected, actual } if expected == UNNAMED => {
                let kind = actual.split(':').next().unwrap_or_default();
                let call = name(kind).unwrap_or("the call");
                Self::new(format_args!("{call} succeeds"), actual)
            }
            other => Self(other),
        }
    }

    /// The verdict that this makes.
    #[must_use]
    pub fn into_verdict(self) -> Verdict {
        self.0
    }
}

/// What is expected of a call whose name the runner puts in.
const UNNAMED: &str = "a call succeeds";

/// A call failed that the contract has succeed.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(UNNAMED, describe_error(&error))
    }
}

/// What came of one case on one store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The store keeps this clause.
    Pass,
    /// The store breaks it.
    Fail {
        /// What the contract has.
        expected: String,
        /// What came instead.
        actual: String,
    },
    /// The case does not apply to this store, or the harness lacks a hook.
    Skip(String),
    /// The store breaks the clause, and its author knows.
    Waived {
        /// Why that is accepted.
        reason: String,
        /// Where it is tracked.
        link: String,
        /// The last day on which the waiver holds, as `YYYY-MM-DD`.
        until: String,
    },
    /// The case ran and proved nothing.
    Inconclusive(String),
    /// The harness, the waiver file or the kit itself is at fault.
    Error(String),
}

impl Verdict {
    /// The word of the verdict in reports.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail { .. } => "fail",
            Self::Skip(_) => "skip",
            Self::Waived { .. } => "waived",
            Self::Inconclusive(_) => "inconclusive",
            Self::Error(_) => "error",
        }
    }

    /// The reason in one text, empty for a pass.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Pass => String::new(),
            Self::Fail { expected, actual } => format!("expected {expected}; got {actual}"),
            Self::Waived {
                reason,
                link,
                until,
            } => format!("{reason} ({link}, until {until})"),
            Self::Skip(reason) | Self::Inconclusive(reason) | Self::Error(reason) => reason.clone(),
        }
    }
}

/// An error with its kind and its causes.
pub(crate) fn describe_error(error: &Error) -> String {
    let mut text = format!("{:?}: {error}", error.kind());
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A record for people.
pub(crate) fn describe(record: Option<&Record>) -> String {
    let Some(record) = record else {
        return "None".into();
    };
    let shown = &record.data[..record.data.len().min(24)];
    let dots = if shown.len() < record.data.len() {
        "…"
    } else {
        ""
    };
    format!(
        "a record of {} bytes \"{}{dots}\", revision {:016x}, expiry {:?}",
        record.data.len(),
        shown.escape_ascii(),
        record.revision.to_bits(),
        record.expires_at,
    )
}

/// A record that is not the one that was expected, with every field in which it differs.
pub(crate) fn describe_difference(expected: &Record, found: Option<&Record>) -> String {
    let text = describe(found);
    let Some(found) = found else {
        return text;
    };
    let subject = |record: &Record| match &record.subject {
        Some(subject) => format!("{:?}", subject.as_str()),
        None => "none".into(),
    };
    let label = |record: &Record| format!("{:?}", record.label.as_str());
    let millis = |at: Timestamp| format!("{} ms", at.as_millis());
    let revision = |record: &Record| format!("{:016x}", record.revision.to_bits());
    let fields = [
        ("revision", revision(found), revision(expected)),
        (
            "created_at",
            millis(found.created_at),
            millis(expected.created_at),
        ),
        (
            "expires_at",
            millis(found.expires_at),
            millis(expected.expires_at),
        ),
        ("subject", subject(found), subject(expected)),
        ("label", label(found), label(expected)),
    ];
    let data = (found.data != expected.data).then(|| {
        let same = found
            .data
            .iter()
            .zip(&expected.data)
            .take_while(|(a, b)| a == b);
        format!("another data from byte {} on", same.count())
    });
    let others = fields
        .iter()
        .filter(|(_, found, expected)| found != expected);
    let others = others
        .map(|(name, found, expected)| format!("another {name}, {found} instead of {expected}"));
    let others: Vec<_> = data.into_iter().chain(others).collect();
    format!("{text} ({})", others.join("; "))
}

/// The answer of a delete as the answers of other writes are: [`Missing`](ErrorKind::Missing) when
/// it has ended nothing.
pub(crate) fn ended(answer: StoreResult<bool>) -> StoreResult<()> {
    match answer? {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Missing, "nothing was ended")),
    }
}
