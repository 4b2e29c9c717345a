use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{Entropy, Error, ErrorKind, Result};

/// What a store keeps for one session.
///
/// A store treats [`data`](Self::data) as opaque bytes and returns every field as it was given. It
/// makes subject and label of what it reads with [`Subject::from_stored`] and
/// [`Label::from_stored`].
///
/// ```
/// use sessionkit::{OsEntropy, Record, Revision, Timestamp};
/// use std::time::Duration;
///
/// let now = Timestamp::from_millis(1_700_000_000_000);
/// let record = Record {
///     data: "opaque".into(),
///     revision: Revision::random(&OsEntropy)?,
///     created_at: now,
///     expires_at: now + Duration::from_secs(3600),
///     subject: None,
///     label: Default::default(),
/// };
/// assert!(record.is_live(now));
/// # Ok::<(), sessionkit::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// The payload, opaque to the store.
    pub data: Bytes,
    /// Names this version of the record; chosen anew by the writer for each write.
    pub revision: Revision,
    /// When the session began.
    pub created_at: Timestamp,
    /// The first instant at which the record is no longer visible.
    pub expires_at: Timestamp,
    /// Whose session this is, for listing and revoking all sessions of one subject.
    pub subject: Option<Subject>,
    /// Short text for the list of a subject's sessions; empty by default.
    pub label: Label,
}

impl Record {
    /// Whether the record is visible at `now`: strictly before [`expires_at`](Self::expires_at).
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }

    /// Checks the size of the data against a store's limit in bytes, before anything is written.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] when there are more.
    pub fn check_size(&self, max_data: usize) -> Result<()> {
        if self.data.len() > max_data {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "the session has {} bytes, and the store takes {max_data}",
                    self.data.len()
                ),
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("data", &format_args!("{} bytes", self.data.len()))
            .field("created_at", &self.created_at)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// The version of a stored record: 64 random bits, so that a revision is never met again, not even
/// after a session was deleted and created anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revision(u64);

impl Revision {
    /// A new revision.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the source of randomness fails.
    pub fn random(entropy: &dyn Entropy) -> Result<Self> {
        let mut bytes = [0; 8];
        entropy.fill(&mut bytes)?;
        Ok(Self::from_bits(u64::from_le_bytes(bytes)))
    }

    /// The revision with these bits, as read back from a backend.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits to write to a backend.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }
}

/// An instant in whole milliseconds since 1970-01-01T00:00:00Z, from there to the end of the year
/// 9999.
///
/// Arithmetic saturates at both ends, so that a huge lifetime is a distant expiry, never an
/// overflow and never an expiry in the past.
///
/// ```
/// use sessionkit::Timestamp;
/// use std::time::Duration;
///
/// let start = Timestamp::from_millis(1_000);
/// assert_eq!((start + Duration::from_secs(1)).as_millis(), 2_000);
/// assert_eq!(start + Duration::MAX, Timestamp::MAX);
/// assert_eq!(start.saturating_duration_since(Timestamp::MAX), Duration::ZERO);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01T00:00:00.000Z.
    pub const MIN: Self = Self(0);
    /// 9999-12-31T23:59:59.999Z.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// The instant `millis` milliseconds after the Unix epoch, brought into [`MIN`](Self::MIN)
    /// ..= [`MAX`](Self::MAX).
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        if millis < Self::MIN.0 {
            Self::MIN
        } else if millis > Self::MAX.0 {
            Self::MAX
        } else {
            Self(millis)
        }
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The time from `earlier` to `self`, zero when `earlier` is later.
    #[must_use]
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self::from_millis(self.0.saturating_add(millis))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self::from_millis(self.0.saturating_sub(millis))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

/// Whose session it is: an opaque key of 1 to [`MAX_LEN`](Self::MAX_LEN) bytes, compared byte for
/// byte.
///
/// Backends keep it readable, to find a subject's sessions by it; use an internal number or a
/// pseudonym where a leaked database must not name people. It has no character that steers how a
/// text is shown instead of being seen itself, since it gets into lists and logs: control characters
/// (U+0000 to U+001F, U+007F to U+009F), the separators of lines and paragraphs (U+2028, U+2029), and
/// those that embed, override or isolate a direction (U+202A to U+202E, U+2066 to U+2069; Unicode
/// Standard Annex #9). The layers of this crate mark records with some of them.
///
/// ```
/// use sessionkit::{ErrorKind, Subject};
///
/// let subject = Subject::new("user-42")?;
/// assert_eq!(subject.as_str(), "user-42");
/// assert_eq!(Subject::new("").unwrap_err().kind(), ErrorKind::InvalidValue);
/// # Ok::<(), sessionkit::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(Arc<str>);

impl Subject {
    /// The longest subject, in bytes.
    pub const MAX_LEN: usize = 255;

    /// Checks the length and the characters.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] when `subject` is empty, longer than
    /// [`MAX_LEN`](Self::MAX_LEN) bytes, or has a character that steers.
    pub fn new(subject: impl Into<Arc<str>>) -> Result<Self> {
        let subject = subject.into();
        if subject.contains(steers) {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                "a subject has no control characters",
            ));
        }
        Self::from_stored(subject)
    }

    /// The subject of a record that a store has kept: checks the length alone, so that records stay
    /// readable that are older than a rule for characters, or were written by a layer. An
    /// application calls [`new`](Self::new).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] when `subject` is empty or longer than
    /// [`MAX_LEN`](Self::MAX_LEN) bytes.
    pub fn from_stored(subject: impl Into<Arc<str>>) -> Result<Self> {
        let subject = subject.into();
        if subject.is_empty() || subject.len() > Self::MAX_LEN {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                "a subject has 1 to 255 bytes",
            ));
        }
        Ok(Self(subject))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subject(..)")
    }
}

/// A short readable text for the list of a subject's sessions, such as the name of the browser.
///
/// Backends keep it readable. The empty label is the default. It has no character that steers how
/// text is shown, as a [`Subject`].
///
/// ```
/// use sessionkit::Label;
///
/// assert_eq!(Label::new("Firefox on Linux")?.as_str(), "Firefox on Linux");
/// assert_eq!(Label::default().as_str(), "");
/// # Ok::<(), sessionkit::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Label(Option<Arc<str>>);

impl Label {
    /// The longest label, in bytes.
    pub const MAX_LEN: usize = 255;

    /// Checks the length and the characters.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] when `label` is longer than [`MAX_LEN`](Self::MAX_LEN) bytes, or
    /// has a character that steers.
    pub fn new(label: &str) -> Result<Self> {
        if label.contains(steers) {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                "a label has no control characters",
            ));
        }
        Self::from_stored(label)
    }

    /// The label of a record that a store has kept, as [`Subject::from_stored`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] when `label` is longer than [`MAX_LEN`](Self::MAX_LEN) bytes.
    pub fn from_stored(label: &str) -> Result<Self> {
        if label.len() > Self::MAX_LEN {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                "a label has at most 255 bytes",
            ));
        }
        Ok(Self((!label.is_empty()).then(|| label.into())))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Label(..)")
    }
}

/// Whether a character changes how others are shown, or where a line ends.
fn steers(character: char) -> bool {
    let unseen = ['\u{2028}'..='\u{202e}', '\u{2066}'..='\u{2069}'];
    character.is_control() || unseen.iter().any(|range| range.contains(&character))
}
