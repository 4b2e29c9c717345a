use std::{
    fs::File,
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use rustix::{
    fs::{
        AtFlags, CWD, Dir as Entries, FileType, FlockOperation, Mode, OFlags, Stat, Timespec,
        Timestamps, fchmod, flock, fstat, futimens, mkdirat, openat, renameat, statat, unlinkat,
    },
    io::{Errno, Result as Io},
    process::{Gid, Uid, getegid, geteuid, getgroups},
};
use sessionkit::{Error, ErrorKind, Result, StoreKey, Timestamp};

use crate::{
    codec::{self, Header, MAX_FILE, MAX_HEADER},
    failpoint,
    failure::{Failure, corrupt, error},
};

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// With the bit by which what is created in the directory gets its group.
const GROUP_DIR_MODE: u32 = 0o2770;
const GROUP_FILE_MODE: u32 = 0o660;
const ANYBODY_WRITES: u32 = 0o002;
const GROUP_WRITES: u32 = 0o020;
const GROUP: u32 = 0o070;

/// Whom what is ours may belong to, and who else may open it.
#[derive(Clone, Copy, Debug)]
struct Access {
    user: Uid,
    /// The group of the store's directory, where the operator lets it in.
    group: Option<Gid>,
}

impl Access {
    fn includes(self, stat: &Stat) -> bool {
        stat.st_uid == self.user.as_raw()
            || self
                .group
                .is_some_and(|group| stat.st_gid == group.as_raw())
    }

    /// The bits that let somebody in who should stay out.
    fn forbidden(self) -> u32 {
        match self.group {
            Some(_) => 0o007,
            None => 0o077,
        }
    }

    /// Whether a directory's mode lets in whom it should, and nobody else.
    fn fits(self, mode: u32) -> bool {
        mode & self.forbidden() == 0
            && (self.group.is_none() || mode & GROUP_DIR_MODE == GROUP_DIR_MODE)
    }
}

/// An open directory. Names are looked up in it one at a time and no symbolic link is followed, so
/// that nothing outside can be reached, whatever becomes of the path that it was opened by.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    access: Access,
}

impl Dir {
    /// Opens the directory of a store, and creates it unless it exists. Its group has access to
    /// everything in it where `group_access` says so.
    pub(crate) fn root(path: &Path, group_access: bool) -> Result<Self> {
        // Without the trailing slash, which would make the last component's link be followed.
        let path: PathBuf = path.components().collect();
        let fd = match openat(CWD, &path, dir_flags(), Mode::empty()) {
            Err(Errno::NOENT) => create_root(&path),
            opened => opened,
        }
        .map_err(|errno| unusable(&path, errno))?;
        let mut access = Access {
            user: geteuid(),
            group: None,
        };
        if group_access {
            let stat = fstat(&fd).map_err(error)?;
            let group = Gid::from_raw(stat.st_gid);
            if !access.includes(&stat) && !is_ours(group).map_err(error)? {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    format!(
                        "the session directory {} belongs to another user, and to a group that \
                         this process is not in",
                        path.display()
                    ),
                ));
            }
            access.group = Some(group);
        }
        Ok(Self { fd, access })
    }

    /// Makes the directory ours alone, or our group's.
    ///
    /// One that others could write to is refused, because what they left in it is there to stay.
    /// One that they could only read is closed to them, unless `is_ours` denies a name in it: then
    /// it serves something else as well.
    pub(crate) fn protect(&self, path: &Path, is_ours: impl Fn(&str) -> bool) -> Result<()> {
        let refuse = |what: &str| {
            let message = format!("the session directory {} {what}", path.display());
            Error::new(ErrorKind::InvalidConfig, message)
        };
        let stat = fstat(&self.fd).map_err(error)?;
        let (mode, access) = (stat.st_mode, self.access);
        if !access.includes(&stat) {
            return Err(refuse(if access.group.is_some() {
                "belongs to another user and another group than the store"
            } else if mode & GROUP == GROUP {
                "belongs to another user; if its group is meant to share it, as on a volume with \
                 `fsGroup`, set `FsOptions::group_access` (`group_access=true` in a URL)"
            } else {
                "belongs to another user"
            }));
        }
        if mode & ANYBODY_WRITES != 0 {
            return Err(refuse(
                "can be written by others than its owner; give the store a new one",
            ));
        }
        if access.group.is_none() && mode & GROUP_WRITES != 0 {
            return Err(refuse(
                "can be written by others than its owner: its group; if that is meant, as on a \
                 volume with `fsGroup`, set `FsOptions::group_access` (`group_access=true` in a \
                 URL), else give the store a new one",
            ));
        }
        if access.fits(mode) {
            return Ok(());
        }
        if mode & access.forbidden() != 0 {
            for name in self.names().map_err(error)? {
                if !is_ours(&name.map_err(error)?) {
                    return Err(refuse(
                        "can be read by others and has other files in it; give the store its own \
                         one, or close it to them",
                    ));
                }
            }
        }
        let (mode, what) = match access.group {
            None => (DIR_MODE, "cannot be closed to others"),
            Some(_) => (GROUP_DIR_MODE, "has not the mode 2770, nor can it be set"),
        };
        fchmod(&self.fd, Mode::from_raw_mode(mode)).map_err(|errno| refuse(what).with_source(errno))
    }

    /// Asks ext4 to keep the directories in this one far apart, in block groups of their own.
    ///
    /// It does not use an inode again for minutes after it was freed, and whoever makes a file
    /// looks at all such inodes of its group first, for up to a millisecond. Each update makes a
    /// file and frees another. Other file systems do not know this flag.
    #[cfg(target_os = "linux")]
    pub(crate) fn spread_children(&self) {
        use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
        if let Ok(flags) = ioctl_getflags(&self.fd)
            && !flags.contains(IFlags::TOPDIR)
        {
            let _ = ioctl_setflags(&self.fd, flags | IFlags::TOPDIR);
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn spread_children(&self) {}

    /// Refuses a file system without locks.
    pub(crate) fn probe_lock(&self, path: &Path) -> Result<()> {
        let locked = self.try_lock().map_err(|errno| unusable(path, errno))?;
        if locked {
            self.unlock();
        }
        Ok(())
    }

    /// Whether the directory itself was removed.
    pub(crate) fn is_removed(&self) -> Io<bool> {
        Ok(fstat(&self.fd)?.st_nlink == 0)
    }

    /// The directory of this name in this one.
    pub(crate) fn child(&self, name: &str) -> Result<Option<Self>, Failure> {
        match openat(&self.fd, name, dir_flags(), Mode::empty()) {
            Ok(fd) => Ok(Some(Self {
                fd,
                access: self.access,
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP | Errno::MLINK | Errno::NOTDIR) => {
                Err(corrupt("a directory of the store has been replaced by something else").into())
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Creates a directory; returns whether it did not exist.
    pub(crate) fn create_child(&self, name: &str) -> Io<bool> {
        failpoint::reach("create directory")?;
        match mkdirat(&self.fd, name, Mode::from_raw_mode(DIR_MODE)) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(false),
            Err(errno) => return Err(errno),
        }
        if self.access.group.is_some() {
            // Whatever the umask says. Another user who looks in between is refused as
            // unavailable, and nothing happens.
            let child = openat(&self.fd, name, dir_flags(), Mode::empty())?;
            fchmod(&child, Mode::from_raw_mode(GROUP_DIR_MODE))?;
        }
        Ok(true)
    }

    /// Removes a directory that is empty, and no other.
    pub(crate) fn remove_child(&self, name: &str) -> Io<()> {
        failpoint::reach("remove directory")?;
        unlinkat(&self.fd, name, AtFlags::REMOVEDIR)
    }

    /// The names in the directory; those that are not UTF-8 are nobody of ours.
    pub(crate) fn names(&self) -> Io<impl Iterator<Item = Io<String>>> {
        Ok(
            Entries::read_from(&self.fd)?.filter_map(|entry| match entry {
                Ok(entry) => match entry.file_name().to_str() {
                    Ok("." | "..") | Err(_) => None,
                    Ok(name) => Some(Ok(name.to_owned())),
                },
                Err(errno) => Some(Err(errno)),
            }),
        )
    }

    /// A new empty file, `None` when the name is taken.
    pub(crate) fn create_file(&self, name: &str) -> Io<Option<File>> {
        failpoint::reach("create file")?;
        let flags = OFlags::WRONLY
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::CLOEXEC;
        let fd = match openat(&self.fd, name, flags, Mode::from_raw_mode(FILE_MODE)) {
            Ok(fd) => fd,
            Err(Errno::EXIST) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        if self.access.group.is_some() {
            fchmod(&fd, Mode::from_raw_mode(GROUP_FILE_MODE))?;
        }
        Ok(Some(File::from(fd)))
    }

    /// Opens a file of ours and refuses everything else that may have been put in its place.
    pub(crate) fn open_file(&self, name: &str) -> Result<Option<Stored>, Failure> {
        self.open_as(name, OFlags::RDONLY)
    }

    /// As [`open_file`](Self::open_file), to write in place.
    pub(crate) fn open_to_write(&self, name: &str) -> Result<Option<Stored>, Failure> {
        self.open_as(name, OFlags::RDWR)
    }

    fn open_as(&self, name: &str, access: OFlags) -> Result<Option<Stored>, Failure> {
        let file = match openat(&self.fd, name, access | read_flags(), Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::MLINK | Errno::NXIO | Errno::NODEV | Errno::ISDIR) => {
                return Err(not_a_file().into());
            }
            Err(errno) => return Err(errno.into()),
        };
        Stored::checked(file, self.access).map(Some)
    }

    /// Opens a file in a directory within this one, as [`child`](Self::child) and then
    /// [`open_file`](Self::open_file) do, with one system call where there is one for it.
    pub(crate) fn open_below(&self, dir: &str, name: &str) -> Result<Option<Stored>, Failure> {
        match self.open_path(&[dir, "/", name].concat()) {
            Ok(fd) => Stored::checked(File::from(fd), self.access).map(Some),
            Err(Errno::NOENT) => Ok(None),
            // Not supported, not permitted, or a link in the way: step by step it becomes clear.
            Err(_) => match self.child(dir)? {
                Some(child) => child.open_file(name),
                None => Ok(None),
            },
        }
    }

    /// Without a time of access: a file's time of modification is when its session expires, and as
    /// long as that lies ahead, each reading would otherwise write the time down.
    #[cfg(target_os = "linux")]
    fn open_path(&self, path: &str) -> Io<OwnedFd> {
        use rustix::fs::{ResolveFlags, openat2};
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = read_flags() | OFlags::NOATIME;
        openat2(&self.fd, path, flags, Mode::empty(), resolve)
    }

    #[cfg(not(target_os = "linux"))]
    fn open_path(&self, _path: &str) -> Io<OwnedFd> {
        Err(Errno::NOSYS)
    }

    /// What is at a name, without opening it.
    pub(crate) fn stat(&self, name: &str) -> Io<Option<Stat>> {
        match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Removes whatever is at a name, a link itself and not its target. Returns whether there was
    /// something.
    pub(crate) fn remove(&self, name: &str) -> Result<bool, Failure> {
        failpoint::reach("remove file")?;
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            // Linux says the former, POSIX the latter.
            Err(Errno::ISDIR | Errno::PERM) => match self.remove_child(name) {
                Ok(()) => Ok(true),
                Err(Errno::NOENT) => Ok(false),
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    Err(corrupt("a directory with files in it is in the place of a session").into())
                }
                Err(errno) => Err(errno.into()),
            },
            Err(errno) => Err(errno.into()),
        }
    }

    /// Gives a file another name, here or in `to`, and replaces what has that name.
    pub(crate) fn rename(&self, name: &str, to: &Self, new_name: &str) -> Result<(), Failure> {
        failpoint::reach("rename")?;
        match renameat(&self.fd, name, &to.fd, new_name) {
            Err(Errno::ISDIR | Errno::NOTEMPTY) => Err(not_a_file().into()),
            renamed => Ok(renamed?),
        }
    }

    /// As [`rename`](Self::rename), unless something has the new name already: `false` then.
    /// `None` where the system or the file system cannot do that in one step.
    pub(crate) fn rename_new(
        &self,
        name: &str,
        to: &Self,
        new_name: &str,
    ) -> Result<Option<bool>, Failure> {
        failpoint::reach("rename")?;
        match self.rename_noreplace(name, to, new_name) {
            Ok(()) => Ok(Some(true)),
            Err(Errno::EXIST) => Ok(Some(false)),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    #[cfg(target_os = "linux")]
    fn rename_noreplace(&self, name: &str, to: &Self, new_name: &str) -> Io<()> {
        use rustix::fs::{RenameFlags, renameat_with};
        renameat_with(&self.fd, name, &to.fd, new_name, RenameFlags::NOREPLACE)
    }

    #[cfg(not(target_os = "linux"))]
    fn rename_noreplace(&self, _name: &str, _to: &Self, _new_name: &str) -> Io<()> {
        Err(Errno::NOSYS)
    }

    /// Makes the names in the directory survive a power failure.
    pub(crate) fn sync(&self) -> Io<()> {
        failpoint::reach("sync directory")?;
        rustix::fs::fsync(&self.fd)
    }

    pub(crate) fn try_lock(&self) -> Io<bool> {
        try_lock(&self.fd)
    }

    /// Said to the kernel rather than left to `close`: a child process may have inherited the
    /// descriptor for the moment between `fork` and `exec`, and would keep the lock.
    pub(crate) fn unlock(&self) {
        let _ = flock(&self.fd, FlockOperation::Unlock);
    }
}

/// Takes the lock of an open file for as long as it stays open, unless another holds it.
pub(crate) fn try_lock(file: impl rustix::fd::AsFd) -> Io<bool> {
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Notes a session's expiry as the file's time of modification, by which a sweep passes over the
/// files that are not due without opening them. It is a hint: the record decides.
///
/// The time of access is set a second later, or else a `relatime` mount would write a new one at
/// every read of a file that was "modified" in the future.
pub(crate) fn note(file: &File, expires_at: Timestamp) {
    let times = |millis: i64| Timespec {
        tv_sec: millis.div_euclid(1000),
        tv_nsec: (millis.rem_euclid(1000) * 1_000_000) as _,
    };
    let millis = expires_at.as_millis();
    // A file system that cannot keep that date makes the sweep slower and nothing else.
    let _ = futimens(
        file,
        &Timestamps {
            last_access: times(millis + 1000),
            last_modification: times(millis),
        },
    );
}

/// The expiry that [`note`] noted, in milliseconds; never later than that.
pub(crate) fn noted_expiry(stat: &Stat) -> i64 {
    #[expect(
        clippy::unnecessary_cast,
        reason = "the width of these fields differs between systems"
    )]
    let (seconds, nanos) = (stat.st_mtime as i64, stat.st_mtime_nsec as i64);
    seconds
        .saturating_mul(1000)
        .saturating_add(nanos / 1_000_000)
}

/// Which file it is, for as long as it is kept open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId(u64, u64);

impl FileId {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self(stat.st_dev as _, stat.st_ino as _)
    }
}

/// A file of ours, open. Its contents never change: a write replaces the file.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) file: File,
    pub(crate) id: FileId,
    pub(crate) size: usize,
}

impl Stored {
    /// A second name of the file is let pass: it is a backup's, and no write goes into a file.
    fn checked(file: File, access: Access) -> Result<Self, Failure> {
        // Checked on what was opened, not on the name, which may mean something else by now.
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(not_a_file().into());
        }
        if !access.includes(&stat) {
            return Err(corrupt("the session's file belongs to another user").into());
        }
        if stat.st_mode & access.forbidden() != 0 {
            return Err(corrupt(if stat.st_mode & 0o007 == 0 {
                "the session's file is open to its group: see `FsOptions::group_access`"
            } else {
                "the session's file is open to others than its owner"
            })
            .into());
        }
        Ok(Self {
            id: FileId::of(&stat),
            size: usize::try_from(stat.st_size).unwrap_or(usize::MAX),
            file,
        })
    }

    /// The header of the record that this file holds for `key`.
    pub(crate) fn header(&self, key: &StoreKey) -> Result<Header> {
        let mut bytes = [0; MAX_HEADER];
        let bytes = &mut bytes[..MAX_HEADER.min(self.size)];
        self.read(bytes)?;
        Header::of(key, bytes, self.size)
    }

    /// The whole file.
    pub(crate) fn contents(&self) -> Result<Bytes> {
        // Not to reserve what a damaged or foreign file claims to have.
        if self.size > MAX_FILE {
            return Err(codec::damaged());
        }
        let mut bytes = vec![0; self.size];
        self.read(&mut bytes)?;
        Ok(bytes.into())
    }

    fn read(&self, buffer: &mut [u8]) -> Result<()> {
        self.file
            .read_exact_at(buffer, 0)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => codec::damaged(),
                _ => Error::new(ErrorKind::Unavailable, "the session's file cannot be read")
                    .with_source(error),
            })
    }
}

/// Whether this process is in a group.
fn is_ours(group: Gid) -> Io<bool> {
    Ok(group == getegid() || getgroups()?.contains(&group))
}

fn create_root(path: &Path) -> Io<OwnedFd> {
    match mkdirat(CWD, path, Mode::from_raw_mode(DIR_MODE)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // The parent may be unreadable to us. The directory exists, which is all that was asked.
    if let Ok(parent) = openat(CWD, parent, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::fs::fsync(&parent);
    }
    openat(CWD, path, dir_flags(), Mode::empty())
}

fn dir_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// Not to wait for the other end of a FIFO, nor to become the terminal's owner.
fn read_flags() -> OFlags {
    OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC
}

fn not_a_file() -> Error {
    corrupt("what is in the session's place is not a file of the store")
}

fn unusable(path: &Path, errno: Errno) -> Error {
    let why = match errno {
        Errno::NOENT => "has no parent directory",
        Errno::NAMETOOLONG => "has a name that is too long",
        Errno::NOTDIR | Errno::LOOP | Errno::MLINK => "is not a directory, or a link to one",
        Errno::ACCESS | Errno::PERM => "does not let this process in",
        Errno::ROFS => "does not exist, on a read-only file system",
        Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF | Errno::INVAL => {
            "is on a file system without locks"
        }
        errno => return error(errno),
    };
    Error::new(
        ErrorKind::InvalidConfig,
        format!("the session directory {} {why}", path.display()),
    )
    .with_source(std::io::Error::from(errno))
}
