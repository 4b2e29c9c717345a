use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use sessionkit::{
    CookieName, OsEntropy, Record, Revision, SessionStore, StoreKey, Timestamp, Token,
};
use sessionkit_fs::{FsOptions, FsStore, SyncPolicy};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::{
    measure::{Comparison, time_tasks},
    payload::visitor,
};

const SESSIONS: usize = 1000;

pub async fn run(rounds: usize) {
    for (sync, name, count) in [
        (SyncPolicy::None, "no sync", 4000),
        (SyncPolicy::Full, "full sync", 400),
    ] {
        for tasks in [1, 64] {
            let setting = Setting {
                sync,
                title: format!("{tasks} tasks, {name}"),
                tasks,
                count,
                rounds,
            };
            setting.load().await;
            setting.update().await;
            setting.create().await;
            setting.delete().await;
        }
    }
}

/// How load and update depend on the number of sessions.
pub async fn grow() {
    let dir = TempDir::new().expect("a temporary directory");
    let store = Arc::new(open(dir.path(), SyncPolicy::None).await);
    println!("\nfiles, no sync, 1 task: microseconds by the number of sessions");
    println!(
        "{:>10} {:>10} {:>10} {:>22}",
        "sessions", "load", "update", "sweep of nothing, ms"
    );
    let mut tokens = Arc::new(Vec::new());
    for size in [1_000, 100_000, 1_000_000] {
        let more = new_tokens(size - tokens.len());
        let (filling, filler) = (Arc::clone(&more), Arc::clone(&store));
        time_tasks(64, more.len(), move |number| {
            let (tokens, store) = (Arc::clone(&filling), Arc::clone(&filler));
            async move {
                let created = store.create(tokens[number].clone(), &record()).await;
                created.expect("it is new");
            }
        })
        .await;
        tokens = Arc::new([&tokens[..], &more[..]].concat());
        // Spread over all of them, the same number at each size.
        let step = tokens.len() / SESSIONS;
        let (mut load, mut update) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            let start = Instant::now();
            for token in tokens.iter().step_by(step) {
                store.load(token).await.expect("it is readable");
            }
            load.push(start.elapsed().as_secs_f64() * 1e6 / SESSIONS as f64);
            let start = Instant::now();
            for token in tokens.iter().step_by(step) {
                let record = record();
                let updated = store.update(token, record.revision, &record).await;
                updated.expect("it is there");
            }
            update.push(start.elapsed().as_secs_f64() * 1e6 / SESSIONS as f64);
        }
        load.sort_by(f64::total_cmp);
        update.sort_by(f64::total_cmp);
        let start = Instant::now();
        let swept = store.sweep(1000).await;
        let sweep = match swept {
            Ok(_) => format!("{:.0}", start.elapsed().as_secs_f64() * 1e3),
            Err(error) => error.to_string(),
        };
        println!(
            "{size:>10} {:>10.1} {:>10.1} {sweep:>22}",
            load[2], update[2]
        );
    }
}

struct Setting {
    sync: SyncPolicy,
    title: String,
    tasks: usize,
    count: usize,
    rounds: usize,
}

impl Setting {
    async fn load(&self) {
        let (tokens, raw, store, dir) = self.filled(SESSIONS).await;
        let (theirs, tasks, count) = (Arc::clone(&tokens), self.tasks, self.count);
        Comparison::new(format!("files, load, {}", self.title))
            .add("one blocking hop", move || {
                let (tokens, raw) = (Arc::clone(&theirs), Arc::clone(&raw));
                time_tasks(tasks, count, move |number| {
                    let (key, raw) = (tokens[number % SESSIONS].key(), Arc::clone(&raw));
                    hop(move || drop(raw.load(&key)))
                })
            })
            .add("sessionkit FsStore", move || {
                let (tokens, store) = (Arc::clone(&tokens), Arc::clone(&store));
                time_tasks(tasks, count, move |number| {
                    let (tokens, store) = (Arc::clone(&tokens), Arc::clone(&store));
                    async move {
                        let found = store.load(&tokens[number % SESSIONS]).await;
                        assert!(found.expect("it is readable").is_some());
                    }
                })
            })
            .print(self.rounds)
            .await;
        drop(dir);
    }

    async fn update(&self) {
        let (tokens, raw, store, dir) = self.filled(SESSIONS).await;
        let (theirs, tasks, count) = (Arc::clone(&tokens), self.tasks, self.count);
        Comparison::new(format!("files, update, {}", self.title))
            .add("one blocking hop", move || {
                let (tokens, raw) = (Arc::clone(&theirs), Arc::clone(&raw));
                time_tasks(tasks, count, move |number| {
                    let (key, raw) = (tokens[number % SESSIONS].key(), Arc::clone(&raw));
                    hop(move || raw.store(&key, &record().data))
                })
            })
            .add("sessionkit FsStore", move || {
                let (tokens, store) = (Arc::clone(&tokens), Arc::clone(&store));
                time_tasks(tasks, count, move |number| {
                    let (tokens, store) = (Arc::clone(&tokens), Arc::clone(&store));
                    async move {
                        let record = record();
                        let token = &tokens[number % SESSIONS];
                        let updated = store.update(token, record.revision, &record).await;
                        updated.expect("it is there");
                    }
                })
            })
            .print(self.rounds)
            .await;
        drop(dir);
    }

    async fn create(&self) {
        let dir = TempDir::new().expect("a temporary directory");
        let (raw, store) = self.open(dir.path()).await;
        let (tasks, count) = (self.tasks, self.count);
        Comparison::new(format!("files, create, {}", self.title))
            .add("one blocking hop", move || {
                let (tokens, raw) = (new_tokens(count), Arc::clone(&raw));
                time_tasks(tasks, count, move |number| {
                    let (key, raw) = (tokens[number].key(), Arc::clone(&raw));
                    hop(move || raw.store(&key, &record().data))
                })
            })
            .add("sessionkit FsStore", move || {
                let (tokens, store) = (new_tokens(count), Arc::clone(&store));
                time_tasks(tasks, count, move |number| {
                    let (tokens, store) = (Arc::clone(&tokens), Arc::clone(&store));
                    async move {
                        let created = store.create(tokens[number].clone(), &record()).await;
                        created.expect("it is new");
                    }
                })
            })
            .print(self.rounds)
            .await;
    }

    async fn delete(&self) {
        let size = self.count * self.rounds;
        let (tokens, raw, store, dir) = self.filled(size).await;
        let (theirs, tasks, count) = (Arc::clone(&tokens), self.tasks, self.count);
        let (deleted, ours) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Comparison::new(format!("files, delete, {}", self.title))
            .add("one blocking hop", move || {
                let first = deleted.fetch_add(count, Ordering::Relaxed);
                let (tokens, raw) = (Arc::clone(&theirs), Arc::clone(&raw));
                time_tasks(tasks, count, move |number| {
                    let (key, raw) = (tokens[first + number].key(), Arc::clone(&raw));
                    hop(move || raw.delete(&key))
                })
            })
            .add("sessionkit FsStore", move || {
                let first = ours.fetch_add(count, Ordering::Relaxed);
                let (tokens, store) = (Arc::clone(&tokens), Arc::clone(&store));
                time_tasks(tasks, count, move |number| {
                    let (tokens, store) = (Arc::clone(&tokens), Arc::clone(&store));
                    async move {
                        let deleted = store.delete(&tokens[first + number]).await;
                        deleted.expect("the disk works");
                    }
                })
            })
            .print(self.rounds)
            .await;
        drop(dir);
    }

    async fn open(&self, dir: &Path) -> (Arc<Raw>, Arc<FsStore>) {
        let raw = Raw::new(&dir.join("raw"), self.sync);
        (Arc::new(raw), Arc::new(open(dir, self.sync).await))
    }

    /// The same sessions in both, written without waiting for the disk.
    async fn filled(&self, size: usize) -> (Arc<Vec<Token>>, Arc<Raw>, Arc<FsStore>, TempDir) {
        let dir = TempDir::new().expect("a temporary directory");
        let tokens = new_tokens(size);
        let fast = open(dir.path(), SyncPolicy::None).await;
        let fast_raw = Raw::new(&dir.path().join("raw"), SyncPolicy::None);
        for token in tokens.iter() {
            fast_raw.store(&token.key(), &record().data);
            let created = fast.create(token.clone(), &record()).await;
            created.expect("it is new");
        }
        let (raw, store) = self.open(dir.path()).await;
        (tokens, raw, store, dir)
    }
}

async fn open(dir: &Path, sync: SyncPolicy) -> FsStore {
    let store = FsOptions::new().sync(sync).open(dir.join("ours")).await;
    store.expect("the directory is new")
}

async fn hop(work: impl FnOnce() + Send + 'static) {
    spawn_blocking(work).await.expect("it does not panic");
}

fn new_tokens(count: usize) -> Arc<Vec<Token>> {
    let name = CookieName::new("id").expect("a cookie name");
    let token = |_| Token::random(&OsEntropy, &name).expect("random bytes");
    Arc::new((0..count).map(token).collect())
}

fn record() -> Record {
    let data = rmp_serde::to_vec_named(&visitor()).expect("it is a value");
    Record {
        data: data.into(),
        revision: Revision::from_bits(7),
        created_at: Timestamp::MIN,
        expires_at: Timestamp::MAX,
        subject: None,
        label: Default::default(),
    }
}

/// What a file costs: no locks, no checks, no expiry, the same directories and the same syncs.
struct Raw {
    dirs: Vec<PathBuf>,
    sync: SyncPolicy,
    next: AtomicUsize,
}

impl Raw {
    fn new(root: &Path, sync: SyncPolicy) -> Self {
        let dirs: Vec<_> = (0..256).map(|n| root.join(format!("{n:02x}"))).collect();
        for dir in &dirs {
            fs::create_dir_all(dir).expect("a temporary directory");
        }
        Self {
            dirs,
            sync,
            next: AtomicUsize::new(0),
        }
    }

    fn dir(&self, key: &StoreKey) -> &Path {
        &self.dirs[usize::from(key.as_bytes()[0])]
    }

    fn load(&self, key: &StoreKey) -> Vec<u8> {
        fs::read(self.dir(key).join(key.to_hex())).expect("it is there")
    }

    fn store(&self, key: &StoreKey, data: &[u8]) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = self.dir(key).join(format!("tmp-{number}"));
        let mut file = File::create_new(&temporary).expect("it is new");
        file.write_all(data).expect("there is room");
        if self.sync != SyncPolicy::None {
            file.sync_data().expect("the disk works");
        }
        fs::rename(&temporary, self.dir(key).join(key.to_hex())).expect("it is there");
        self.sync_dir(key);
    }

    fn delete(&self, key: &StoreKey) {
        fs::remove_file(self.dir(key).join(key.to_hex())).expect("it is there");
        self.sync_dir(key);
    }

    fn sync_dir(&self, key: &StoreKey) {
        if self.sync == SyncPolicy::Full {
            let dir = File::open(self.dir(key)).expect("it is there");
            dir.sync_all().expect("the disk works");
        }
    }
}
