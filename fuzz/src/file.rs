use std::{
    fs,
    path::{Path, PathBuf},
};

use sessionkit::{SessionStore, Token};
use sessionkit_fs::{FsOptions, FsStore, SyncPolicy};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::support::{clock, cookie_name, decoded, directory, record, runtime, token};

/// The fields of a file that the store's documentation of its format names.
const KEY: std::ops::Range<usize> = 8..40;
const SUBJECT_LEN: usize = 68;
const LABEL_LEN: usize = 69;
const DATA_SUM: std::ops::Range<usize> = 72..88;
const SUM: usize = 16;

thread_local! {
    static WORLD: World = World::new();
}

/// The file of a session, as it is and with the key and the checksums put right, which nobody would
/// guess: what is read is written to the same bytes.
pub fn file(input: &[u8]) -> bool {
    WORLD.with(|world| {
        let repaired = world.repaired(input);
        let files = [Some(input), repaired.as_deref()];
        files
            .into_iter()
            .flatten()
            .fold(false, |taken, file| taken | world.read(file))
    })
}

struct World {
    runtime: Runtime,
    /// Whose file the input is.
    read: FsStore,
    path: PathBuf,
    /// Where what was read is written.
    written: FsStore,
    path_of_written: PathBuf,
    token: Token,
    _directory: TempDir,
}

impl World {
    fn new() -> Self {
        let (directory, runtime) = (directory(), runtime());
        let token = token(&cookie_name());
        let open = |name: &str| {
            let path = directory.path().join(name);
            let options = FsOptions::new().clock(clock()).sync(SyncPolicy::None);
            let store = runtime.block_on(options.open(&path)).expect("it opens");
            let created = runtime.block_on(store.create(token.clone(), &record(b"data")));
            created.expect("there is room");
            let name = token.key().to_hex();
            (store, path.join(&name[..2]).join(name))
        };
        let ((read, path), (written, path_of_written)) = (open("read"), open("written"));
        Self {
            runtime,
            read,
            path,
            written,
            path_of_written,
            token,
            _directory: directory,
        }
    }

    /// Whether the store takes a file with these contents.
    fn read(&self, file: &[u8]) -> bool {
        write(&self.path, file);
        let loaded = self.runtime.block_on(self.read.load(&self.token));
        let Some(Some(record)) = decoded(loaded) else {
            return false;
        };
        let delete = self.written.delete(&self.token, None);
        self.runtime.block_on(delete).expect("it can be removed");
        let create = self.written.create(self.token.clone(), &record);
        self.runtime.block_on(create).expect("it was stored before");
        let again = fs::read(&self.path_of_written).expect("it was just written");
        assert_eq!(again, file);
        true
    }

    /// The input with the key of the token, and with checksums of what it has.
    fn repaired(&self, input: &[u8]) -> Option<Vec<u8>> {
        let mut file = input.to_vec();
        let texts = usize::from(*file.get(SUBJECT_LEN)?) + usize::from(*file.get(LABEL_LEN)?);
        let header = DATA_SUM.end + texts;
        let data = checksum(file.get(header + SUM..)?);
        file[KEY].copy_from_slice(self.token.key().as_bytes());
        file[DATA_SUM].copy_from_slice(&data);
        let sum = checksum(&file[..header]);
        file[header..header + SUM].copy_from_slice(&sum);
        Some(file)
    }
}

/// Replaces the contents, and keeps the mode.
fn write(path: &Path, contents: &[u8]) {
    fs::write(path, contents).expect("the file is ours");
}

fn checksum(bytes: &[u8]) -> [u8; SUM] {
    *Sha256::digest(bytes)
        .first_chunk()
        .expect("a hash has 32 bytes")
}
