use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sessionkit::{
    CookieName, ErrorKind, ManualClock, OsEntropy, Record, Result, Revision, Subject, Timestamp,
    Token,
};
use sessionkit_fs::{FsOptions, FsStore};
use tempfile::TempDir;

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// A directory that is removed at the end, with a store's directory in it.
pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
    pub(crate) clock: Arc<ManualClock>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            clock: Arc::new(ManualClock::new(NOW)),
        }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("sessions")
    }

    pub(crate) fn options(&self) -> FsOptions {
        FsOptions::new().clock(self.clock.clone())
    }

    pub(crate) async fn open(&self) -> FsStore {
        self.options().open(self.root()).await.unwrap()
    }

    pub(crate) fn path_of(&self, token: &Token) -> PathBuf {
        path_of(&self.root(), token)
    }
}

/// Where the README says that a session is.
pub(crate) fn path_of(root: &Path, token: &Token) -> PathBuf {
    let name = token.key().to_hex();
    root.join(&name[..2]).join(name)
}

pub(crate) fn token() -> Token {
    Token::random(&OsEntropy, &CookieName::new("id").unwrap()).unwrap()
}

/// The token of this number, always the same one.
pub(crate) fn token_of(number: u32) -> Token {
    let cookie = CookieName::new("id").unwrap();
    Token::from_bytes(number.to_le_bytes().repeat(8), &cookie)
}

pub(crate) fn record(data: &str) -> Record {
    Record {
        data: data.to_owned().into(),
        revision: Revision::random(&OsEntropy).unwrap(),
        created_at: NOW,
        expires_at: NOW + MINUTE,
        subject: None,
        label: Default::default(),
    }
}

pub(crate) fn record_of(subject: &str, data: &str) -> Record {
    Record {
        subject: Some(Subject::new(subject).unwrap()),
        ..record(data)
    }
}

pub(crate) fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// Paths, contents and modes of everything below a directory.
pub(crate) fn snapshot(path: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    use std::os::unix::fs::PermissionsExt;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let read = || -> std::io::Result<_> {
            let meta = path.symlink_metadata()?;
            let contents = match meta.is_file() {
                true => std::fs::read(&path)?,
                false => Vec::new(),
            };
            Ok((meta, contents))
        };
        let (meta, contents) = match read() {
            // A thread whose caller has gone has removed its temporary file.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            read => read.unwrap(),
        };
        found.push((path.clone(), meta.permissions().mode(), contents));
        if meta.is_dir() {
            found.extend(snapshot(&path));
        }
    }
    found.sort();
    found
}
