//! The file of a database, which nothing but SQLite ever opens: when a process closes a file, the
//! system drops every lock that the process holds on it (`fcntl`), those of all its connections
//! too. Then another process takes itself for the last one that uses the database, and removes the
//! log that the connections of this one go on writing to.

use std::{
    fs::{OpenOptions, Permissions, hard_link, metadata, remove_file},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use sessionkit::{Error, ErrorKind, Result};

use crate::statement::random;

const PRIVATE: u32 = 0o600;

/// Makes the file, readable by its owner only, unless it is there: SQLite would make it with the
/// mode that the process's mask leaves, and gives its other files the mode of this one.
///
/// It gets its name when it is closed, so that nobody can have opened it before and lose a lock.
pub(super) fn create_private(path: &Path) -> Result<()> {
    if metadata(path).is_ok() {
        return Ok(());
    }
    create(path).map_err(|error| {
        let message = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported => {
                "the session database file cannot be made; where the file system has no hard \
                 links, make an empty one"
            }
            _ => "the session database file cannot be made",
        };
        Error::new(ErrorKind::Unavailable, message).with_source(error)
    })
}

fn create(path: &Path) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{:016x}.new", random()));
    let draft = PathBuf::from(draft);
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE)
        .open(&draft)?
        .set_permissions(Permissions::from_mode(PRIVATE));
    let linked = made.and_then(|()| hard_link(&draft, path));
    remove_file(&draft)?;
    match linked {
        // Somebody else was faster; or a symbolic link is there and leads nowhere.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => metadata(path).map(drop),
        linked => linked,
    }
}
