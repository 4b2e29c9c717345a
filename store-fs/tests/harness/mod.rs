//! How the conformance kit opens the store.

use std::{
    fs::{self, File},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use sessionkit::{
    Clock, CookieName, Error, ErrorKind, Label, ManualClock, Record, Result, Revision,
    SessionStore, Subject, SystemClock, Timestamp, Token,
};
use sessionkit_conformance::{Fault, Golden, Harness, RawEntry};
use sessionkit_fs::{FsOptions, SyncPolicy};
use tempfile::TempDir;

/// Each namespace is a directory in a temporary one.
pub(crate) struct FsHarness {
    dir: TempDir,
    pub(crate) clock: Arc<ManualClock>,
    /// Directories whose locks somebody else holds.
    busy: Mutex<Vec<File>>,
}

impl FsHarness {
    pub(crate) fn new() -> Self {
        Self {
            dir: TempDir::new().expect("the directory for temporary files can be written"),
            clock: Arc::new(ManualClock::new(SystemClock.now())),
            busy: Mutex::default(),
        }
    }

    pub(crate) fn root(&self, namespace: &str) -> Result<PathBuf> {
        // What is no name in a directory is no namespace.
        if namespace.is_empty() || namespace.contains(['/', '\0']) || namespace.starts_with('.') {
            return Err(ErrorKind::InvalidConfig.into());
        }
        Ok(self.dir.path().join(namespace))
    }
}

#[async_trait]
impl Harness for FsHarness {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        let options = options(self.clock.clone());
        Ok(Arc::new(options.open(self.root(namespace)?).await?))
    }

    async fn destroy(&self, namespace: &str) -> Result<()> {
        match self.root(namespace) {
            Ok(root) if root.exists() => fs::remove_dir_all(root).map_err(broken),
            // It was refused, or never opened.
            _ => Ok(()),
        }
    }

    fn clock(&self) -> Option<Arc<ManualClock>> {
        Some(self.clock.clone())
    }

    async fn raw_dump(&self, namespace: &str) -> Result<Vec<RawEntry>> {
        let root = self.root(namespace)?;
        if !root.exists() {
            return Ok(Vec::new());
        }
        // A thread whose caller has gone may be about to remove its temporary file.
        for _ in 0..250 {
            let mut entries = Vec::new();
            let dumped = dump(&root, &root, &mut entries);
            let is_temp = |entry: &RawEntry| entry.name.windows(5).any(|part| part == b".tmp-");
            if dumped.is_ok() && !entries.iter().any(is_temp) {
                return Ok(entries);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(ErrorKind::Corrupt.into())
    }

    async fn raw_write(&self, namespace: &str, entry: &RawEntry) -> Result<()> {
        fs::write(self.root(namespace)?.join(path(entry)), &entry.value).map_err(broken)
    }

    async fn golden(&self, namespace: &str) -> Result<Vec<Golden>> {
        let record = Record {
            data: "a golden session".into(),
            revision: Revision::from_bits(0x0123_4567_89ab_cdef),
            created_at: Timestamp::from_millis(1_800_000_000_000),
            expires_at: Timestamp::MAX,
            subject: Some(Subject::new("alice")?),
            label: Label::new("Firefox on Linux")?,
        };
        let mut newer = include_bytes!("../golden/v1.session").to_vec();
        newer[7] = 2;
        let files = [
            (
                0,
                include_bytes!("../golden/v1.session").to_vec(),
                Some(record),
            ),
            (32, newer, None),
        ];
        let mut golden = Vec::new();
        for (first, contents, record) in files {
            let token = (first..first + 32).collect::<Vec<u8>>();
            let token = Token::from_bytes(token, &CookieName::new("id")?);
            let name = token.key().to_hex();
            let path = self.root(namespace)?.join(&name[..2]).join(name);
            for (path, mode) in [(path.parent().expect("it has one"), 0o700), (&path, 0o600)] {
                match mode {
                    0o700 => fs::create_dir_all(path).map_err(broken)?,
                    _ => fs::write(path, &contents).map_err(broken)?,
                }
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(broken)?;
            }
            golden.push(Golden { token, record });
        }
        Ok(golden)
    }

    /// A process that holds every lock there is. What else can go wrong with a disk is in `it/disk`.
    async fn fault(&self, fault: Fault) -> Result<()> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.clear();
        match fault {
            Fault::None => Ok(()),
            Fault::Busy => lock_all(self.dir.path(), &mut busy),
            _ => Err(ErrorKind::Unsupported.into()),
        }
    }

    async fn foreign(&self, namespace: &str) -> Result<Vec<RawEntry>> {
        let root = self.root(namespace)?;
        let shard = root.join("ab");
        let file = shard.join("notes.txt");
        let link = shard.join("f".repeat(64));
        if !file.exists() {
            fs::create_dir_all(&shard).map_err(broken)?;
            fs::set_permissions(&shard, fs::Permissions::from_mode(0o700)).map_err(broken)?;
            fs::write(&file, "not a session").map_err(broken)?;
            symlink(&file, &link).map_err(broken)?;
        }
        Ok(vec![
            RawEntry {
                name: b"ab/notes.txt".to_vec(),
                value: fs::read(&file).map_err(broken)?,
            },
            RawEntry {
                name: b"link".to_vec(),
                value: fs::read_link(&link)
                    .map_err(broken)?
                    .into_os_string()
                    .into_encoded_bytes(),
            },
        ])
    }
}

pub(crate) fn options(clock: Arc<dyn Clock>) -> FsOptions {
    // The kit cannot switch off the power, and makes tens of thousands of writes.
    FsOptions::new().sync(SyncPolicy::None).clock(clock)
}

fn dump(root: &Path, dir: &Path, entries: &mut Vec<RawEntry>) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(broken)? {
        let path = entry.map_err(broken)?.path();
        if path.is_dir() {
            dump(root, &path, entries)?;
        } else {
            let name = path.strip_prefix(root).expect("it is below the root");
            entries.push(RawEntry {
                name: name.to_string_lossy().into_owned().into_bytes(),
                value: fs::read(&path).map_err(broken)?,
            });
        }
    }
    Ok(())
}

fn lock_all(dir: &Path, busy: &mut Vec<File>) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(broken)? {
        let path = entry.map_err(broken)?.path();
        if path.is_dir() {
            lock_all(&path, busy)?;
            let dir = File::open(path).map_err(broken)?;
            dir.lock().map_err(broken)?;
            busy.push(dir);
        }
    }
    Ok(())
}

fn path(entry: &RawEntry) -> PathBuf {
    String::from_utf8_lossy(&entry.name).into_owned().into()
}

fn broken(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the harness cannot do it").with_source(error)
}
