use std::{
    fmt,
    hash::{DefaultHasher, Hasher},
    panic::Location,
};

use sessionkit::{Error, ErrorKind, Record, Result as StoreResult, Subject, Timestamp};

/// What a case returns.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a case did not pass.
#[derive(Debug)]
pub struct Failure {
    verdict: Verdict,
    /// Where a case passed on the error of a call without saying which call it was.
    unnamed: Option<&'static Location<'static>>,
}

impl Failure {
    /// The store does something else than the contract says.
    pub fn new(expected: impl fmt::Display, actual: impl fmt::Display) -> Self {
        Self::from_verdict(Verdict::Fail {
            expected: expected.to_string(),
            actual: actual.to_string(),
        })
    }

    /// The case does not apply, and this is why.
    pub fn skip(reason: impl Into<String>) -> Self {
        Self::from_verdict(Verdict::Skip(reason.into()))
    }

    /// The case ran and proved nothing, for instance because no calls overlapped.
    pub fn inconclusive(reason: impl Into<String>) -> Self {
        Self::from_verdict(Verdict::Inconclusive(reason.into()))
    }

    /// The harness broke, not the store.
    pub fn error(reason: impl Into<String>) -> Self {
        Self::from_verdict(Verdict::Error(reason.into()))
    }

    pub(crate) const fn from_verdict(verdict: Verdict) -> Self {
        Self {
            verdict,
            unnamed: None,
        }
    }

    /// The same with the name of the call that failed in this way, where the case did not give it and
    /// one of a store did.
    pub(crate) fn named(self, name: impl FnOnce(&str) -> Option<&'static str>) -> Self {
        let (Verdict::Fail { actual, .. }, Some(place)) = (&self.verdict, self.unnamed) else {
            return self;
        };
        let kind = actual.split(':').next().unwrap_or_default();
        match name(kind) {
            Some(call) => Self::new(format_args!("{call} succeeds, at {place}"), actual),
            None => self,
        }
    }

    /// The verdict that this makes.
    #[must_use]
    pub fn into_verdict(self) -> Verdict {
        self.verdict
    }
}

/// A call failed that the contract has succeed.
impl From<Error> for Failure {
    #[track_caller]
    fn from(error: Error) -> Self {
        let place = Location::caller();
        let expected = format_args!("what is called at {place} succeeds");
        Self {
            unnamed: Some(place),
            ..Self::new(expected, describe_error(&error))
        }
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

/// A record for people: two that differ are two texts.
pub(crate) fn describe(record: Option<&Record>) -> String {
    let Some(record) = record else {
        return "None".into();
    };
    let fields = fields(record);
    let fields = fields.map(|(name, value)| format!("{name} {value}"));
    format!(
        "a record of {} bytes {}, {}",
        record.data.len(),
        excerpt(&record.data),
        fields.join(", ")
    )
}

/// A record that is not the one that was expected, with every field in which it differs.
pub(crate) fn describe_difference(expected: &Record, found: Option<&Record>) -> String {
    let text = describe(found);
    let Some(found) = found else {
        return text;
    };
    let data = (found.data != expected.data).then(|| {
        let at = first_difference(&found.data, &expected.data);
        format!("another data from byte {at} on")
    });
    let texts = [
        (subject(found), subject(expected)),
        (found.label.as_str(), expected.label.as_str()),
    ];
    let mut texts = texts
        .map(|(found, expected)| first_difference(found.as_bytes(), expected.as_bytes()))
        .into_iter();
    let others = fields(found).into_iter().zip(fields(expected));
    let others = others.filter_map(|((name, found), (_, expected))| {
        let at = match name {
            "subject" | "label" => texts.next(),
            _ => None,
        };
        let at = at
            .filter(|at| *at > 0)
            .map_or_else(String::new, |at| format!(" from byte {at} on"));
        (found != expected).then(|| format!("another {name}{at}, {found} instead of {expected}"))
    });
    let differences: Vec<_> = data.into_iter().chain(others).collect();
    format!("{text} ({})", differences.join("; "))
}

/// The fields of a record other than its data.
fn fields(record: &Record) -> [(&'static str, String); 5] {
    let millis = |at: Timestamp| format!("{} ms", at.as_millis());
    let subject = match &record.subject {
        Some(subject) => excerpt(subject.as_str().as_bytes()),
        None => "none".into(),
    };
    [
        ("revision", format!("{:016x}", record.revision.to_bits())),
        ("created_at", millis(record.created_at)),
        ("expires_at", millis(record.expires_at)),
        ("subject", subject),
        ("label", excerpt(record.label.as_str().as_bytes())),
    ]
}

fn subject(record: &Record) -> &str {
    record.subject.as_ref().map_or("", Subject::as_str)
}

fn first_difference(one: &[u8], other: &[u8]) -> usize {
    let same = one.iter().zip(other).take_while(|(a, b)| a == b);
    same.count()
}

/// The beginning of what may be long, with a hash of the whole. What looks alike to people, such as a
/// letter and the same letter in two parts, does not here.
fn excerpt(bytes: &[u8]) -> String {
    const SHOWN: usize = 24;
    match bytes.get(..SHOWN) {
        Some(shown) if bytes.len() > SHOWN => {
            let mut hash = DefaultHasher::new();
            hash.write(bytes);
            format!("\"{}…\" #{:016x}", shown.escape_ascii(), hash.finish())
        }
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}

/// The answer of a delete as the answers of other writes are: [`Missing`](ErrorKind::Missing) when
/// it has ended nothing.
pub(crate) fn ended(answer: StoreResult<bool>) -> StoreResult<()> {
    match answer? {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Missing, "nothing was ended")),
    }
}
