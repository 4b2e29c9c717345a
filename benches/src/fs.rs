use std::{
    fs::{self, DirBuilder, File},
    io::Write,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use futures_util::future::{BoxFuture, FutureExt};
use sessionkit::{Record, SessionStore, StoreKey, Token};
use sessionkit_fs::{FsOptions, FsStore, SyncPolicy};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::{
    measure::{Comparison, time_tasks},
    payload::{new_tokens, record},
};

const SESSIONS: usize = 1000;
/// How many pairs of new directories the rounds are spread over: how full the parts of the disk are
/// that a directory falls into makes more of a difference than anything else.
const PLACES: usize = 6;
const GROWTH_ROUNDS: usize = 21;

pub async fn run(rounds: usize) {
    for (sync, name, count) in [
        (SyncPolicy::None, "no sync", 2000),
        (SyncPolicy::Data, "data sync", 300),
        (SyncPolicy::Full, "full sync", 300),
    ] {
        for tasks in [1, 64] {
            let setting = Setting {
                sync,
                title: format!("{tasks} tasks, {name}"),
                tasks,
                count,
                rounds: rounds.div_ceil(PLACES),
            };
            setting.everywhere(Setting::load).await;
            setting.everywhere(Setting::update).await;
            setting.everywhere(Setting::create).await;
            setting.everywhere(Setting::delete).await;
        }
    }
}

/// How load and update depend on the number of sessions, beside the same number of plain files.
pub async fn grow() {
    let dir = TempDir::new().expect("a temporary directory");
    let raw = Arc::new(Raw::new(&dir.path().join("raw"), SyncPolicy::None).await);
    let store = Arc::new(open(dir.path(), SyncPolicy::None).await);
    println!("\nfiles, no sync, 64 tasks: microseconds by the number of sessions");
    println!(
        "{:>10} {:>9} {:>9} {:>11} {:>11} {:>22}",
        "sessions", "load", "one hop", "update", "one hop", "sweep of nothing, ms"
    );
    let mut tokens = Arc::new(Vec::new());
    for size in [1_000, 100_000, 1_000_000] {
        let more = Arc::new(new_tokens(size - tokens.len()));
        let count = more.len();
        time_hops(64, count, &more, &raw, |raw, key| {
            raw.create(key, &record().data)
        })
        .await;
        time_store(64, count, &more, &store, create).await;
        // What the system still writes of that is not to be measured.
        let synced = Command::new("sync").status();
        assert!(synced.expect("sync starts").success());
        tokens = Arc::new([&tokens[..], &more[..]].concat());
        // Spread over all of them, the same number at each size.
        let step = tokens.len() / SESSIONS;
        let some: Arc<Vec<_>> = Arc::new(tokens.iter().step_by(step).cloned().collect());
        let mut micros = [const { Vec::new() }; 4];
        for _ in 0..GROWTH_ROUNDS {
            for (times, nanos) in micros.iter_mut().zip([
                time_store(64, SESSIONS, &some, &store, load).await,
                time_hops(64, SESSIONS, &some, &raw, |raw, key| drop(raw.load(key))).await,
                time_store(64, SESSIONS, &some, &store, update).await,
                time_hops(64, SESSIONS, &some, &raw, |raw, key| {
                    raw.update(key, &record())
                })
                .await,
            ]) {
                times.push(nanos / 1e3);
            }
        }
        let [load, load_raw, update, update_raw] = micros.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        });
        let start = Instant::now();
        let sweep = match store.sweep(1000).await {
            Ok(_) => format!("{:.0}", start.elapsed().as_secs_f64() * 1e3),
            Err(error) => error.to_string(),
        };
        println!(
            "{size:>10} {load:>9.1} {load_raw:>9.1} {update:>11.1} {update_raw:>11.1} {sweep:>22}"
        );
    }
}

struct Setting {
    sync: SyncPolicy,
    title: String,
    tasks: usize,
    count: usize,
    /// In each place.
    rounds: usize,
}

impl Setting {
    async fn everywhere(&self, operation: impl AsyncFn(&Self) -> Comparison) {
        let mut comparison = operation(self).await;
        for _ in 1..PLACES {
            comparison = comparison.and(operation(self).await);
        }
        comparison.report();
    }

    async fn load(&self) -> Comparison {
        let (tokens, raw, store, _dir) = self.filled(SESSIONS).await;
        self.comparison("load")
            .add(
                "one blocking hop",
                self.hops(&tokens, &raw, |raw, key| drop(raw.load(key))),
            )
            .add("sessionkit FsStore", self.ours(&tokens, &store, load))
            .measured(self.rounds)
            .await
    }

    async fn update(&self) -> Comparison {
        let (tokens, raw, store, _dir) = self.filled(SESSIONS).await;
        let plain = |raw: &Raw, key: &StoreKey| raw.create(key, &record().data);
        self.comparison("update")
            .add(
                "one blocking hop, locks and compares",
                self.hops(&tokens, &raw, |raw, key| raw.update(key, &record())),
            )
            .add(
                "one blocking hop, loses updates",
                self.hops(&tokens, &raw, plain),
            )
            .add("sessionkit FsStore", self.ours(&tokens, &store, update))
            .measured(self.rounds)
            .await
    }

    async fn create(&self) -> Comparison {
        let (_, raw, store, _dir) = self.filled(0).await;
        let (tasks, count) = (self.tasks, self.count);
        self.comparison("create")
            .add("one blocking hop", move || {
                let (tokens, raw) = (Arc::new(new_tokens(count)), Arc::clone(&raw));
                async move {
                    let create = |raw: &Raw, key: &StoreKey| raw.create(key, &record().data);
                    time_hops(tasks, count, &tokens, &raw, create).await
                }
            })
            .add("sessionkit FsStore", move || {
                let (tokens, store) = (Arc::new(new_tokens(count)), Arc::clone(&store));
                async move { time_store(tasks, count, &tokens, &store, create).await }
            })
            .measured(self.rounds)
            .await
    }

    async fn delete(&self) -> Comparison {
        let (tokens, raw, store, _dir) = self.filled(2 * self.count * self.rounds).await;
        // The plain files are shared by the two ways of deleting them.
        let next = Arc::new(AtomicUsize::new(0));
        let (locked, plain) = (self.parts(&tokens, &next), self.parts(&tokens, &next));
        let theirs = Arc::clone(&raw);
        let mine = self.parts(&tokens, &Arc::default());
        let (tasks, count) = (self.tasks, self.count);
        self.comparison("delete")
            .add("one blocking hop, locks", move || {
                let (tokens, raw) = (locked(), Arc::clone(&raw));
                async move { time_hops(tasks, count, &tokens, &raw, Raw::delete_locked).await }
            })
            .add("one blocking hop, revives sessions", move || {
                let (tokens, raw) = (plain(), Arc::clone(&theirs));
                async move { time_hops(tasks, count, &tokens, &raw, Raw::delete).await }
            })
            .add("sessionkit FsStore", move || {
                let (tokens, store) = (mine(), Arc::clone(&store));
                async move { time_store(tasks, count, &tokens, &store, delete).await }
            })
            .measured(self.rounds)
            .await
    }

    fn comparison(&self, operation: &str) -> Comparison {
        Comparison::new(format!("files, {operation}, {}", self.title))
    }

    /// Other tokens at each call.
    fn parts(
        &self,
        tokens: &Arc<Vec<Token>>,
        next: &Arc<AtomicUsize>,
    ) -> impl Fn() -> Arc<Vec<Token>> + use<> {
        let (tokens, next, count) = (Arc::clone(tokens), Arc::clone(next), self.count);
        move || {
            let first = next.fetch_add(count, Ordering::Relaxed);
            Arc::new(tokens[first..first + count].to_vec())
        }
    }

    fn hops(
        &self,
        tokens: &Arc<Vec<Token>>,
        raw: &Arc<Raw>,
        work: fn(&Raw, &StoreKey),
    ) -> impl FnMut() -> BoxFuture<'static, f64> + use<> {
        let (tasks, count) = (self.tasks, self.count);
        let (tokens, raw) = (Arc::clone(tokens), Arc::clone(raw));
        move || {
            let (tokens, raw) = (Arc::clone(&tokens), Arc::clone(&raw));
            async move { time_hops(tasks, count, &tokens, &raw, work).await }.boxed()
        }
    }

    fn ours(
        &self,
        tokens: &Arc<Vec<Token>>,
        store: &Arc<FsStore>,
        work: Work,
    ) -> impl FnMut() -> BoxFuture<'static, f64> + use<> {
        let (tasks, count) = (self.tasks, self.count);
        let (tokens, store) = (Arc::clone(tokens), Arc::clone(store));
        move || {
            let (tokens, store) = (Arc::clone(&tokens), Arc::clone(&store));
            async move { time_store(tasks, count, &tokens, &store, work).await }.boxed()
        }
    }

    /// The same sessions in both, written without waiting for the disk.
    async fn filled(&self, size: usize) -> (Arc<Vec<Token>>, Arc<Raw>, Arc<FsStore>, TempDir) {
        let dir = TempDir::new().expect("a temporary directory");
        let tokens = Arc::new(new_tokens(size));
        let fast = open(dir.path(), SyncPolicy::None).await;
        let path = dir.path().join("raw");
        let fast_raw = Raw::new(&path, SyncPolicy::None).await;
        for token in tokens.iter() {
            fast_raw.create(&token.key(), &record().data);
            create(&fast, token).await;
        }
        let raw = Raw::new(&path, self.sync).await;
        let store = open(dir.path(), self.sync).await;
        (tokens, Arc::new(raw), Arc::new(store), dir)
    }
}

type Work = for<'a> fn(&'a FsStore, &'a Token) -> BoxFuture<'a, ()>;

fn load<'a>(store: &'a FsStore, token: &'a Token) -> BoxFuture<'a, ()> {
    async {
        let found = store.load(token).await;
        assert!(found.expect("it is readable").is_some());
    }
    .boxed()
}

fn update<'a>(store: &'a FsStore, token: &'a Token) -> BoxFuture<'a, ()> {
    async {
        let record = record();
        let updated = store.update(token, record.revision, &record).await;
        updated.expect("it is there");
    }
    .boxed()
}

fn create<'a>(store: &'a FsStore, token: &'a Token) -> BoxFuture<'a, ()> {
    async {
        let created = store.create(token.clone(), &record()).await;
        created.expect("it is new");
    }
    .boxed()
}

fn delete<'a>(store: &'a FsStore, token: &'a Token) -> BoxFuture<'a, ()> {
    async {
        store
            .delete(token, None)
            .await
            .map(drop)
            .expect("the disk works")
    }
    .boxed()
}

async fn time_store(
    tasks: usize,
    count: usize,
    tokens: &Arc<Vec<Token>>,
    store: &Arc<FsStore>,
    work: Work,
) -> f64 {
    let (tokens, store) = (Arc::clone(tokens), Arc::clone(store));
    time_tasks(tasks, count, move |number| {
        let (tokens, store) = (Arc::clone(&tokens), Arc::clone(&store));
        async move { work(&store, &tokens[number % tokens.len()]).await }
    })
    .await
}

async fn time_hops(
    tasks: usize,
    count: usize,
    tokens: &Arc<Vec<Token>>,
    raw: &Arc<Raw>,
    work: fn(&Raw, &StoreKey),
) -> f64 {
    let (tokens, raw) = (Arc::clone(tokens), Arc::clone(raw));
    time_tasks(tasks, count, move |number| {
        let (key, raw) = (tokens[number % tokens.len()].key(), Arc::clone(&raw));
        let hop = spawn_blocking(move || work(&raw, &key));
        async { hop.await.expect("it does not panic") }
    })
    .await
}

async fn open(dir: &Path, sync: SyncPolicy) -> FsStore {
    let store = FsOptions::new().sync(sync).open(dir.join("ours")).await;
    store.expect("the directory is new")
}

/// What files cost at least: the same placement on the disk, the same syncs, one rename for a write.
///
/// Nothing is checked, expires or is swept; names are paths. Creating does not even look whether it
/// replaces something. What compares or must not bring back a session takes the lock that makes it
/// exclude others, also in other processes.
struct Raw {
    dirs: Vec<PathBuf>,
    sync: SyncPolicy,
    next: AtomicUsize,
}

impl Raw {
    async fn new(root: &Path, sync: SyncPolicy) -> Self {
        // It asks the file system to place the directories as it does for its own.
        drop(FsStore::open(root).await.expect("the directory is ours"));
        let dirs: Vec<_> = (0..256).map(|n| root.join(format!("{n:02x}"))).collect();
        for dir in &dirs {
            DirBuilder::new()
                .mode(0o700)
                .recursive(true)
                .create(dir)
                .expect("a temporary directory");
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

    fn create(&self, key: &StoreKey, data: &[u8]) {
        self.write(key, data);
        if self.sync == SyncPolicy::Full {
            sync(&self.open_dir(key));
        }
    }

    fn update(&self, key: &StoreKey, record: &Record) {
        let dir = self.open_dir(key);
        dir.lock().expect("it can be locked");
        // In the place of comparing revisions, which a plain file has not.
        assert_eq!(self.load(key).len(), record.data.len());
        self.write(key, &record.data);
        if self.sync == SyncPolicy::Full {
            sync(&dir);
        }
    }

    fn delete(&self, key: &StoreKey) {
        fs::remove_file(self.dir(key).join(key.to_hex())).expect("it is there");
        if self.sync == SyncPolicy::Full {
            sync(&self.open_dir(key));
        }
    }

    fn delete_locked(&self, key: &StoreKey) {
        let dir = self.open_dir(key);
        dir.lock().expect("it can be locked");
        fs::remove_file(self.dir(key).join(key.to_hex())).expect("it is there");
        if self.sync == SyncPolicy::Full {
            sync(&dir);
        }
    }

    fn write(&self, key: &StoreKey, data: &[u8]) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = self.dir(key).join(format!("tmp-{number}"));
        let mut file = File::create_new(&temporary).expect("it is new");
        file.write_all(data).expect("there is room");
        if self.sync != SyncPolicy::None {
            file.sync_data().expect("the disk works");
        }
        fs::rename(&temporary, self.dir(key).join(key.to_hex())).expect("it is there");
    }

    fn open_dir(&self, key: &StoreKey) -> File {
        File::open(self.dir(key)).expect("it is there")
    }
}

fn sync(dir: &File) {
    dir.sync_all().expect("the disk works");
}
