use std::{path::Path, str::FromStr, sync::Arc, time::Duration};

use sessionkit::{Clock, Durability, Error, ErrorKind, Result, SystemClock};

use crate::FsStore;

/// How to open an [`FsStore`].
///
/// ```no_run
/// use sessionkit_fs::{FsOptions, Quota, SyncPolicy};
///
/// # async fn open() -> sessionkit::Result<()> {
/// let store = FsOptions::new()
///     .sync(SyncPolicy::Data)
///     .quota(Quota::Sessions(100_000))
///     .open("/var/lib/app/sessions")
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct FsOptions {
    pub(crate) sync: SyncPolicy,
    pub(crate) quota: Option<Quota>,
    pub(crate) group_access: bool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) deadline: Duration,
}

impl FsOptions {
    /// The defaults: everything synchronized with the disk, no quota, closed to the group, the
    /// system's clock, a deadline of five seconds.
    #[must_use]
    pub fn new() -> Self {
        Self {
            sync: SyncPolicy::Full,
            quota: None,
            group_access: false,
            clock: Arc::new(SystemClock),
            deadline: Duration::from_secs(5),
        }
    }

    /// Sets what is synchronized with the disk before a write is acknowledged;
    /// [`SyncPolicy::Full`] by default.
    #[must_use]
    pub fn sync(mut self, sync: SyncPolicy) -> Self {
        self.sync = sync;
        self
    }

    /// Sets the size at which new sessions are refused; none by default.
    ///
    /// All processes that share the directory should be given the same one.
    #[must_use]
    pub fn quota(mut self, quota: Quota) -> Self {
        self.quota = Some(quota);
        self
    }

    /// Sets whether the directory's group shares it; it does not by default.
    ///
    /// Container platforms mount a volume for a group (`fsGroup` of Kubernetes): its files belong to
    /// whoever wrote them and are open to the group of the directory, with modes 2770 and 0660. With
    /// this the store takes such a directory and writes like that itself. **Everybody in that group
    /// can read and change every session.**
    #[must_use]
    pub fn group_access(mut self, group_access: bool) -> Self {
        self.group_access = group_access;
        self
    }

    /// Sets the clock that sessions expire by; [`SystemClock`] by default.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the time within which each call ends; five seconds by default.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Opens the store in a directory, which is created unless it exists; its parent has to.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the directory cannot be made private, or its group's with
    /// [`group_access`](Self::group_access): it belongs to another user, others can write to it, it
    /// is open to others and holds something else as well, it is a symbolic link or no directory,
    /// its parent is missing, or its file system has no locks; also when the deadline is zero. [`ErrorKind::Unavailable`] and [`ErrorKind::Full`] when the file
    /// system fails.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub async fn open(self, path: impl AsRef<Path>) -> Result<FsStore> {
        FsStore::open_with(path.as_ref().to_owned(), self).await
    }
}

impl Default for FsOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// What is synchronized with the disk before a write is acknowledged.
///
/// Whatever the policy, a write is seen by all processes or by none, and survives the end of the
/// process. The policies differ in what a power failure or a crash of the operating system may undo.
/// The README has measured costs.
///
/// Written in a URL as `full`, `data` and `none`:
///
/// ```
/// use sessionkit_fs::SyncPolicy;
///
/// assert_eq!("data".parse::<SyncPolicy>()?, SyncPolicy::Data);
/// # Ok::<(), sessionkit::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncPolicy {
    /// The contents and the names: nothing acknowledged is undone, a logout included.
    #[default]
    Full,
    /// The contents: the last seconds may be undone, and each session is as it was before.
    Data,
    /// Nothing: the last seconds may be undone, and sessions written in them may be found damaged.
    None,
}

impl SyncPolicy {
    pub(crate) fn contents(self) -> bool {
        self != Self::None
    }

    pub(crate) fn names(self) -> bool {
        self == Self::Full
    }

    pub(crate) fn durability(self) -> Durability {
        match self {
            Self::Full => Durability::Disk,
            Self::Data | Self::None => Durability::System,
        }
    }
}

impl FromStr for SyncPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "full" => Ok(Self::Full),
            "data" => Ok(Self::Data),
            "none" => Ok(Self::None),
            _ => Err(Error::new(
                ErrorKind::InvalidConfig,
                "the durability of a session directory is `full`, `data` or `none`",
            )),
        }
    }
}

/// The size at which a store refuses new sessions with [`ErrorKind::Full`].
///
/// Expired sessions count until they are swept. Calls that run at the same time may each take the
/// last free place, so that the store can exceed the quota by as many sessions as are being
/// created at once.
///
/// Written in a URL as a number of sessions, or of `KiB`, `MiB`, `GiB` or `TiB`:
///
/// ```
/// use sessionkit_fs::Quota;
///
/// assert_eq!("100000".parse::<Quota>()?, Quota::Sessions(100_000));
/// assert_eq!("2GiB".parse::<Quota>()?, Quota::Bytes(2 << 30));
/// # Ok::<(), sessionkit::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// This many sessions.
    Sessions(u64),
    /// This many bytes in the sessions' files; the blocks of the file system that hold them may be
    /// more. A session that grows is refused as well.
    Bytes(u64),
}

impl FromStr for Quota {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || {
            Error::new(
                ErrorKind::InvalidConfig,
                "a quota is a number of sessions, or of `KiB`, `MiB`, `GiB` or `TiB`",
            )
        };
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let number: u64 = text[..text.len() - unit.len()]
            .parse()
            .map_err(|_| invalid())?;
        let shift = match unit {
            "" => return Ok(Self::Sessions(number)),
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            _ => return Err(invalid()),
        };
        number
            .checked_mul(1 << shift)
            .map(Self::Bytes)
            .ok_or_else(invalid)
    }
}
