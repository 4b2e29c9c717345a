//! SQLite in a file and in memory.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use common::{Opened, all, clock, drop_after, kind, record, subject, token};
use sessionkit::{Durability, ErrorKind, Record, SessionStore, SubjectIndex, Sweeper, Timestamp};
use sessionkit_sqlx::{
    SqliteStore, StoreOptions, TableName,
    sqlx::{
        AssertSqlSafe, Connection, Row, SqliteConnection, SqlitePool, raw_sql,
        sqlite::{SqliteConnectOptions, SqliteJournalMode},
    },
};

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("sessionkit-{}", common::random_name()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.file().display())
    }

    fn file(&self) -> PathBuf {
        self.0.join("sessions.db")
    }

    async fn open(&self, options: StoreOptions) -> SqliteStore {
        let store = SqliteStore::connect(&self.url(), options).await.unwrap();
        store.migrate().await.unwrap();
        store
    }

    async fn raw(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new()
            .filename(self.file())
            .create_if_missing(true);
        SqliteConnection::connect_with(&options).await.unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn memory(options: StoreOptions) -> SqliteStore {
    let store = SqliteStore::connect("sqlite::memory:", options)
        .await
        .unwrap();
    store.migrate().await.unwrap();
    store
}

async fn execute(connection: &mut SqliteConnection, sql: &str) {
    raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .unwrap();
}

mod in_a_file {
    use super::*;

    async fn open() -> Opened {
        let dir = Dir::new();
        let clock = clock();
        let options = StoreOptions::new().clock(clock.clone());
        Opened {
            a: Arc::new(dir.open(options.clone()).await),
            b: Arc::new(dir.open(options).await),
            clock,
            _keep: Some(Box::new(dir)),
        }
    }

    common::cases!(open());
}

mod in_memory {
    use super::*;

    async fn open() -> Opened {
        let clock = clock();
        let store = Arc::new(memory(StoreOptions::new().clock(clock.clone())).await);
        Opened {
            a: store.clone(),
            b: store,
            clock,
            _keep: None,
        }
    }

    common::cases!(open());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_expired_is_not_prolonged() {
    let dir = Dir::new();
    let clock = common::Asked::new();
    let options = StoreOptions::new().clock(clock.clone());
    let stores: [Arc<dyn SessionStore>; 2] = [
        Arc::new(dir.open(options.clone()).await),
        Arc::new(dir.open(options).await),
    ];
    let lock = async || {
        let mut raw = dir.raw().await;
        execute(&mut raw, "BEGIN IMMEDIATE").await;
        raw
    };
    let unlock = async |mut raw| execute(&mut raw, "ROLLBACK").await;
    common::what_was_found_expired_is_not_prolonged(stores, clock, lock, unlock).await;
}

#[tokio::test]
async fn a_load_on_a_host_whose_clock_is_ahead_ends_nothing() {
    let (dir, clock, ahead) = (Dir::new(), clock(), clock());
    let store = dir.open(StoreOptions::new().clock(clock)).await;
    let other = dir.open(StoreOptions::new().clock(ahead.clone())).await;
    ahead.advance(Duration::from_secs(3600));
    let stored = record(b"x");
    let token = store.create(token(), &stored).await.unwrap();
    assert_eq!(other.load(&token).await.unwrap(), None);
    let touched = other.touch(&token, Timestamp::MAX).await;
    assert_eq!(kind(touched), Some(ErrorKind::Missing));
    assert_eq!(store.load(&token).await.unwrap(), Some(stored));
}

#[tokio::test]
async fn a_load_of_what_has_expired_writes_nothing() {
    let (dir, clock) = (Dir::new(), clock());
    let store = dir.open(StoreOptions::new().clock(clock.clone())).await;
    let stored = record(b"x");
    let token = store.create(token(), &stored).await.unwrap();
    clock.set(stored.expires_at);
    let mut other = dir.raw().await;
    execute(&mut other, "BEGIN IMMEDIATE").await;
    assert_eq!(store.load(&token).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_of_everything_ends_by_the_deadline_and_counts_what_it_removed() {
    const ROWS: u64 = 40_000;
    let dir = Dir::new();
    let store = dir
        .open(StoreOptions::new().deadline(Duration::from_secs(1)))
        .await;
    let fill = format!(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {ROWS}) \
         INSERT INTO sessions SELECT randomblob(32), n, 1, 1, n, NULL, x'', x'' FROM n; \
         CREATE TABLE counts (count INTEGER); \
         CREATE TRIGGER slow AFTER DELETE ON sessions BEGIN INSERT INTO counts WITH RECURSIVE \
         n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1000) SELECT max(n) FROM n; END"
    );
    let mut raw = dir.raw().await;
    execute(&mut raw, &fill).await;
    let removed = store.sweep(1_000_000).await.unwrap();
    assert!(removed < ROWS, "{removed}");
    let row = raw_sql("SELECT count(*) FROM sessions")
        .fetch_one(&mut raw)
        .await;
    let left = row.unwrap().get::<i64, _>(0).unsigned_abs();
    // On a busy machine the last batch may be cut off, and done all the same.
    assert!([0, 256].contains(&(ROWS - left - removed)), "{removed}");
}

#[tokio::test]
async fn a_ping_says_whether_a_write_would_be_taken() {
    let dir = Dir::new();
    let deadline = Duration::from_millis(400);
    let options = SqliteConnectOptions::new()
        .filename(dir.file())
        .create_if_missing(true)
        .busy_timeout(deadline / 4);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    let options = StoreOptions::new().deadline(deadline);
    let store = SqliteStore::with_pool(pool.clone(), options).unwrap();
    assert_eq!(kind(store.ping().await), Some(ErrorKind::InvalidConfig));
    store.migrate().await.unwrap();
    store.ping().await.unwrap();
    let mut other = dir.raw().await;
    execute(&mut other, "BEGIN IMMEDIATE").await;
    assert_eq!(kind(store.ping().await), Some(ErrorKind::Unavailable));
    execute(&mut other, "ROLLBACK").await;
    store.ping().await.unwrap();
}

#[tokio::test]
async fn a_database_that_only_reads_is_unavailable_for_writes() {
    let dir = Dir::new();
    let stored = lasting(b"x");
    let store = dir.open(StoreOptions::new()).await;
    let token = store.create(token(), &stored).await.unwrap();
    for options in [
        SqliteConnectOptions::new().read_only(true),
        SqliteConnectOptions::new().pragma("query_only", "1"),
    ] {
        let pool = SqlitePool::connect_with(options.filename(dir.file()));
        let store = SqliteStore::with_pool(pool.await.unwrap(), StoreOptions::new()).unwrap();
        let unavailable = Some(ErrorKind::Unavailable);
        assert_eq!(store.load(&token).await.unwrap().as_ref(), Some(&stored));
        assert_eq!(kind(store.ping().await), unavailable);
        assert_eq!(
            kind(store.create(common::token(), &stored).await),
            unavailable
        );
        let updated = store.update(&token, stored.revision, &stored).await;
        assert_eq!(kind(updated), unavailable);
        assert_eq!(kind(store.touch(&token, Timestamp::MIN).await), unavailable);
        assert_eq!(kind(store.delete(&token, None).await), unavailable);
    }
    assert_eq!(store.load(&token).await.unwrap(), Some(stored));
}

#[tokio::test]
async fn a_session_that_is_to_end_earlier_is_swept_earlier() {
    let (dir, clock) = (Dir::new(), clock());
    let store = dir.open(StoreOptions::new().clock(clock.clone())).await;
    let earlier = common::START + Duration::from_secs(1);
    let stored = record(b"x");
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(store.create(token(), &stored).await.unwrap());
    }
    store.touch(&tokens[0], earlier).await.unwrap();
    let sooner = Record {
        expires_at: earlier,
        ..stored.clone()
    };
    let updated = store.update(&tokens[1], stored.revision, &sooner).await;
    updated.unwrap();
    clock.set(earlier);
    assert_eq!(store.sweep(10).await.unwrap(), 2);
    assert_eq!(store.load(&tokens[2]).await.unwrap(), Some(stored));
}

#[tokio::test]
async fn the_store_says_what_it_survives() {
    let dir = Dir::new();
    let durability = |store: &SqliteStore| store.capabilities().durability;
    assert_eq!(
        durability(&dir.open(StoreOptions::new()).await),
        Durability::System
    );
    let synced = dir.open(StoreOptions::new().sync_to_disk(true)).await;
    assert_eq!(durability(&synced), Durability::Disk);
    assert_eq!(
        durability(&memory(StoreOptions::new()).await),
        Durability::Process
    );
}

#[cfg(unix)]
#[tokio::test]
async fn the_files_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Dir::new();
    let store = dir.open(StoreOptions::new()).await;
    store.create(token(), &record(b"x")).await.unwrap();
    let files: Vec<_> = std::fs::read_dir(&dir.0).unwrap().collect();
    assert_eq!(files.len(), 3);
    for file in files {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn an_existing_file_keeps_its_mode_and_a_link_that_leads_nowhere_is_refused() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = Dir::new();
    std::fs::write(dir.file(), "").unwrap();
    let shared = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(dir.file(), shared).unwrap();
    dir.open(StoreOptions::new()).await;
    let mode = std::fs::metadata(dir.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);

    let dir = Dir::new();
    symlink(dir.0.join("nowhere"), dir.file()).unwrap();
    let opened = SqliteStore::connect(&dir.url(), StoreOptions::new()).await;
    assert_eq!(kind(opened), Some(ErrorKind::Unavailable));
    assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 1);
}

/// Another process on the file, as a backup or the `sqlite3` command is one: it opens the database,
/// counts and closes it.
#[cfg(target_os = "linux")]
mod another_process {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const FILE: &str = "SESSIONKIT_TEST_SQLITE_FILE";
    const TABLE: &str = "SESSIONKIT_TEST_SQLITE_TABLE";

    #[tokio::test]
    #[ignore = "this is the other process of other tests"]
    async fn counts() {
        let Some(file) = std::env::var_os(FILE).map(PathBuf::from) else {
            return;
        };
        let is_last = !is_locked_by_others(&file);
        let options = SqliteConnectOptions::new().filename(&file);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        let sql = format!("SELECT count(*) FROM {}", std::env::var(TABLE).unwrap());
        let row = raw_sql(AssertSqlSafe(sql))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        println!("\ncounted {}", row.get::<i64, _>(0));
        if is_last {
            execute(&mut connection, "PRAGMA wal_checkpoint(TRUNCATE)").await;
            connection.close().await.unwrap();
            remove_the_log(&file);
        }
    }

    /// What SQLite asks when it closes a database. Since its version 3.51, which is in this program,
    /// it asks for the locks of the `-shm` file as well, and finds those that are lost here.
    fn is_locked_by_others(file: &Path) -> bool {
        let inode = format!(":{} ", std::fs::metadata(file).unwrap().ino());
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|lock| lock.contains(&inode))
    }

    /// What the last one on a database does when it has written the log back.
    fn remove_the_log(file: &Path) {
        for suffix in ["-wal", "-shm"] {
            let mut name = file.as_os_str().to_owned();
            name.push(suffix);
            let _ = std::fs::remove_file(name);
        }
    }

    /// What the other process counts.
    pub(super) fn rows_in(dir: &Dir, table: &str) -> u64 {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "another_process::counts"])
            .args(["--ignored", "--nocapture"])
            .env(FILE, dir.file())
            .env(TABLE, table)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let counted = said.lines().find_map(|line| line.strip_prefix("counted "));
        counted.expect(&said).parse().unwrap()
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_second_store_on_a_file_leaves_the_locks_of_the_first() {
    let dir = Dir::new();
    let first = dir.open(StoreOptions::new()).await;
    for _ in 0..3 {
        first.create(token(), &lasting(b"before")).await.unwrap();
    }
    let second = dir.open(StoreOptions::new()).await;
    assert_eq!(another_process::rows_in(&dir, "sessions"), 3);
    for store in [&first, &second, &first] {
        let token = store.create(token(), &lasting(b"after")).await.unwrap();
        assert!(store.load(&token).await.unwrap().is_some());
    }
    assert_eq!(another_process::rows_in(&dir, "sessions"), 6);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_store_leaves_the_locks_of_the_applications_own_pool() {
    let dir = Dir::new();
    let options = SqliteConnectOptions::new()
        .filename(dir.file())
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    raw_sql("CREATE TABLE notes (note INTEGER)")
        .execute(&pool)
        .await
        .unwrap();
    let _store = dir.open(StoreOptions::new()).await;
    assert_eq!(another_process::rows_in(&dir, "notes"), 0);
    for _ in 0..10 {
        raw_sql("INSERT INTO notes VALUES (1)")
            .execute(&pool)
            .await
            .unwrap();
    }
    assert_eq!(another_process::rows_in(&dir, "notes"), 10);
}

#[tokio::test]
async fn sessions_survive_a_restart() {
    let dir = Dir::new();
    let mut stored = record(b"kept");
    stored.expires_at = Timestamp::MAX;
    let store = dir.open(StoreOptions::new()).await;
    let token = store.create(token(), &stored).await.unwrap();
    drop(store);
    let store = dir.open(StoreOptions::new()).await;
    assert_eq!(store.load(&token).await.unwrap(), Some(stored));
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_migrations_at_a_time_succeed() {
    for _ in 0..5 {
        let dir = Dir::new();
        let url = dir.url();
        let starts = (0..8).map(|_| {
            let url = url.clone();
            async move {
                let store = SqliteStore::connect(&url, StoreOptions::new()).await?;
                store.migrate().await?;
                store.create(token(), &record(b"x")).await
            }
        });
        for started in all(starts).await {
            started.unwrap();
        }
    }
}

#[tokio::test]
async fn a_check_says_what_differs() {
    let dir = Dir::new();
    let store = SqliteStore::connect(&dir.url(), StoreOptions::new())
        .await
        .unwrap();
    let missing = store.check().await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::InvalidConfig);
    assert_eq!(
        missing.to_string(),
        "the session table sessions: it does not exist"
    );
    let load = store.load(&token()).await;
    assert_eq!(kind(load), Some(ErrorKind::InvalidConfig));

    execute(
        &mut dir.raw().await,
        "CREATE TABLE sessions (session_key BLOB PRIMARY KEY NOT NULL, revision TEXT NOT NULL, \
         created_at INTEGER NOT NULL, expires_at INTEGER, sweep_at INTEGER NOT NULL, subject BLOB, \
         label BLOB NOT NULL); CREATE INDEX i ON sessions (sweep_at)",
    )
    .await;
    let differs = store.migrate().await.unwrap_err();
    assert_eq!(
        differs.to_string(),
        "the session table sessions: the column revision is TEXT, not INTEGER; the column \
         expires_at takes null; the column data is missing; no index begins with subject"
    );
}

#[tokio::test]
async fn the_printed_schema_is_the_migrated_one() {
    let table = TableName::new("web").unwrap();
    let (by_hand, migrated) = (Dir::new(), Dir::new());
    let options = StoreOptions::new().table(table.clone());
    execute(&mut by_hand.raw().await, &SqliteStore::schema(&table)).await;
    let store = SqliteStore::connect(&by_hand.url(), options.clone())
        .await
        .unwrap();
    store.check().await.unwrap();
    migrated.open(options).await;
    let mut schemas = Vec::new();
    for dir in [&by_hand, &migrated] {
        let rows = raw_sql("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
            .fetch_all(&mut dir.raw().await)
            .await
            .unwrap();
        schemas.push(rows.iter().map(|row| row.get(0)).collect::<Vec<String>>());
    }
    assert_eq!(schemas[0].len(), 3);
    assert_eq!(schemas[0], schemas[1]);
}

/// A table as it was before there were versions.
const UNVERSIONED: &str = "CREATE TABLE sessions (
    session_key BLOB NOT NULL PRIMARY KEY CHECK (length(session_key) = 32),
    revision INTEGER NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
    sweep_at INTEGER NOT NULL, subject BLOB, label BLOB NOT NULL, data BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_sweep_at ON sessions (sweep_at);
CREATE INDEX sessions_subject ON sessions (subject) WHERE subject IS NOT NULL;";

async fn schema_of(dir: &Dir) -> Vec<String> {
    let rows = raw_sql("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
        .fetch_all(&mut dir.raw().await)
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_table_is_made_into_one_of_this_version() {
    let dir = Dir::new();
    execute(&mut dir.raw().await, UNVERSIONED).await;
    let open = || async { SqliteStore::connect(&dir.url(), StoreOptions::new()).await };
    let store = open().await.unwrap();
    let older = store.check().await.unwrap_err();
    assert_eq!(older.kind(), ErrorKind::InvalidConfig);
    assert!(older.to_string().contains("its version is 0"), "{older}");

    let mut stored = lasting(&[7; 1500]);
    stored.subject = subject("alice");
    let mut tokens = Vec::new();
    for _ in 0..300 {
        tokens.push(store.create(token(), &stored).await.unwrap());
    }
    // Several processes begin at the same time, and one goes on.
    let (a, b) = (open().await.unwrap(), open().await.unwrap());
    for migrated in all([a, b].map(|store| async move { store.migrate().await })).await {
        migrated.unwrap();
    }
    let last = tokens.pop().unwrap();
    store.touch(&last, Timestamp::MIN).await.unwrap();
    assert_eq!(store.sweep(1000).await.unwrap(), 1);
    for token in &tokens {
        assert_eq!(store.load(token).await.unwrap().as_ref(), Some(&stored));
    }
    let alice = stored.subject.unwrap();
    let listed = store.list(&alice, None, 1000).await.unwrap();
    assert_eq!(listed.len(), 299);
    let fresh = Dir::new();
    fresh.open(StoreOptions::new()).await;
    assert_eq!(schema_of(&dir).await, schema_of(&fresh).await);
}

#[tokio::test]
async fn a_newer_table_and_one_that_others_use_are_left_alone() {
    let newer = SqliteStore::schema(&TableName::default()).replace("schema 1", "schema 2");
    for (sql, said) in [
        (
            newer,
            "its version is 2, and this program knows none after 1",
        ),
        (
            format!("{UNVERSIONED} CREATE INDEX mine ON sessions (label)"),
            "because of the index mine",
        ),
        (
            format!("{UNVERSIONED} ALTER TABLE sessions ADD tenant TEXT"),
            "because of the column tenant",
        ),
        (
            format!(
                "{UNVERSIONED} CREATE TABLE logins (key BLOB REFERENCES sessions ON DELETE CASCADE)"
            ),
            "because of the reference in logins",
        ),
    ] {
        let dir = Dir::new();
        execute(&mut dir.raw().await, &sql).await;
        let store = SqliteStore::connect(&dir.url(), StoreOptions::new())
            .await
            .unwrap();
        let before = schema_of(&dir).await;
        let token = store.create(token(), &lasting(b"x")).await.unwrap();
        let refused = store.migrate().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidConfig);
        assert!(refused.to_string().contains(said), "{refused}");
        assert_eq!(schema_of(&dir).await, before);
        assert!(store.load(&token).await.unwrap().is_some());
        let checked = store.check().await;
        assert_eq!(kind(checked), Some(ErrorKind::InvalidConfig));
    }
}

#[tokio::test]
async fn tables_share_nothing() {
    let dir = Dir::new();
    let options = |name| StoreOptions::new().table(TableName::new(name).unwrap());
    let (a, ab) = (dir.open(options("a")).await, dir.open(options("a_b")).await);
    let mut stored = record(b"x");
    stored.subject = subject("alice");
    let token = a.create(token(), &stored).await.unwrap();
    assert_eq!(ab.load(&token).await.unwrap(), None);
    assert!(!ab.delete(&token, None).await.unwrap());
    let everyone = stored.subject.as_ref().unwrap();
    assert_eq!(
        ab.subjects()
            .unwrap()
            .revoke_all(everyone, None)
            .await
            .unwrap(),
        0
    );
    assert_eq!(ab.sweep(10).await.unwrap(), 0);
    assert_eq!(a.sweep(10).await.unwrap(), 1);
}

#[tokio::test]
async fn damaged_rows_are_corrupt_and_can_be_deleted() {
    let dir = Dir::new();
    execute(
        &mut dir.raw().await,
        "CREATE TABLE sessions ( -- sessionkit schema 1\n\
         session_key BLOB NOT NULL PRIMARY KEY, revision INTEGER NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, sweep_at INTEGER NOT NULL, \
         subject BLOB, label BLOB NOT NULL, data BLOB NOT NULL); \
         CREATE INDEX i ON sessions (sweep_at); CREATE INDEX j ON sessions (subject)",
    )
    .await;
    let store = dir.open(StoreOptions::new()).await;
    for damage in [
        "revision = 'x'",
        "created_at = -5",
        "subject = x'ff'",
        "subject = x''",
        "label = 7",
        "data = 1.5",
    ] {
        let mut stored = record(b"x");
        stored.expires_at = Timestamp::MAX;
        let token = store.create(token(), &stored).await.unwrap();
        let sql = format!("UPDATE sessions SET {damage}");
        execute(&mut dir.raw().await, &sql).await;
        assert_eq!(
            kind(store.load(&token).await),
            Some(ErrorKind::Corrupt),
            "{damage}"
        );
        let expected = Some(stored.revision);
        let deleted = store.delete(&token, expected).await;
        match damage {
            "revision = 'x'" | "created_at = -5" => {
                assert_eq!(kind(deleted), Some(ErrorKind::Corrupt))
            }
            _ => assert!(deleted.unwrap()),
        }
        store.delete(&token, None).await.unwrap();
        assert_eq!(store.load(&token).await.unwrap(), None);
    }
}

fn lasting(data: &[u8]) -> Record {
    Record {
        expires_at: Timestamp::MAX,
        ..record(data)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_finds_no_room_harms_no_other() {
    let dir = Dir::new();
    let pool = SqlitePool::connect_with(
        SqliteConnectOptions::new()
            .filename(dir.file())
            .create_if_missing(true)
            .pragma("max_page_count", "200"),
    )
    .await
    .unwrap();
    let store = SqliteStore::with_pool(pool, StoreOptions::new()).unwrap();
    store.migrate().await.unwrap();
    let before = lasting(b"before");
    let kept = store.create(token(), &before).await.unwrap();
    // In one round, because they all wait behind the first: a large one among small ones.
    let calls = (0..40_usize).map(|i| {
        let store = store.clone();
        async move {
            let size = if i == 20 { 900_000 } else { 20 };
            (
                i,
                kind(store.create(token(), &lasting(&vec![7; size])).await),
            )
        }
    });
    for (i, kind) in all(calls).await {
        assert_eq!(kind, (i == 20).then_some(ErrorKind::Full), "{i}");
    }
    let too_much = lasting(&vec![7; 900_000]);
    let update = store.update(&kept, before.revision, &too_much).await;
    assert_eq!(kind(update), Some(ErrorKind::Full));
    assert_eq!(store.load(&kept).await.unwrap(), Some(before.clone()));
    store
        .update(&kept, before.revision, &lasting(b"after"))
        .await
        .unwrap();
    assert!(store.delete(&kept, None).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_database_is_unavailable_in_time_and_recovers() {
    let dir = Dir::new();
    let deadline = Duration::from_secs(2);
    let store = dir.open(StoreOptions::new().deadline(deadline)).await;
    let token = store.create(token(), &lasting(b"x")).await.unwrap();
    let mut other = dir.raw().await;
    execute(&mut other, "BEGIN IMMEDIATE").await;
    let calls = (0..20).map(|_| {
        let store = store.clone();
        async move {
            store
                .create(common::token(), &lasting(b"y"))
                .await
                .unwrap_err()
        }
    });
    // Time for a machine that is ten times slower.
    let errors = tokio::time::timeout(deadline * 10, all(calls)).await;
    let mut open = 0;
    for error in errors.expect("no call waits for the lock for ever") {
        match error.kind() {
            ErrorKind::Unavailable => {}
            // On a machine so slow that SQLite's refusal comes after the deadline.
            ErrorKind::Ambiguous => open += 1,
            _ => panic!("{error:?}"),
        }
    }
    // Those who read are not kept waiting.
    assert!(store.load(&token).await.unwrap().is_some());
    execute(&mut other, "ROLLBACK").await;
    assert!(store.delete(&token, None).await.unwrap());
    assert_eq!(store.load(&token).await.unwrap(), None);
    let rows = raw_sql("SELECT count(*) FROM sessions")
        .fetch_one(&mut other)
        .await;
    assert!(
        rows.unwrap().get::<i64, _>(0) <= open,
        "what was refused was stored later"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_withdrawn_while_it_waits_is_never_done() {
    let dir = Dir::new();
    let store = dir.open(StoreOptions::new()).await;
    let mut other = dir.raw().await;
    execute(&mut other, "BEGIN IMMEDIATE").await;
    // The first is with the database, the second waits behind it.
    let first = {
        let store = store.clone();
        tokio::spawn(async move { store.create(token(), &lasting(b"1")).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    let dropped = token();
    drop_after(3, store.create(dropped.clone(), &lasting(b"2"))).await;
    execute(&mut other, "ROLLBACK").await;
    first.await.unwrap().unwrap();
    store.create(token(), &lasting(b"3")).await.unwrap();
    assert_eq!(store.load(&dropped).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_cancelled_calls_leave_nothing_behind() {
    let dir = Dir::new();
    let pool = SqlitePool::connect_with(
        SqliteConnectOptions::new()
            .filename(dir.file())
            .create_if_missing(true),
    )
    .await
    .unwrap();
    let store = SqliteStore::with_pool(pool.clone(), StoreOptions::new()).unwrap();
    store.migrate().await.unwrap();
    for i in 0..1000 {
        let stored = record(b"x");
        let call = store.create(token(), &stored);
        let _ = tokio::time::timeout(Duration::from_micros(i), call).await;
    }
    let token = store.create(token(), &lasting(b"x")).await.unwrap();
    assert!(store.load(&token).await.unwrap().is_some());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(pool.num_idle(), pool.size() as usize);
}

#[tokio::test]
async fn the_handle_outlives_a_runtime() {
    let dir = Dir::new();
    let url = dir.url();
    let store = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let store = SqliteStore::connect(&url, StoreOptions::new())
                .await
                .unwrap();
            store.migrate().await.unwrap();
            store.create(token(), &record(b"x")).await.unwrap();
            store
        })
    })
    .join()
    .unwrap();
    store.create(token(), &record(b"x")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweeper_goes_on_after_errors_and_stops_when_told() {
    let dir = Dir::new();
    let clock = clock();
    let options = StoreOptions::new().clock(clock.clone());
    let store = SqliteStore::connect(&dir.url(), options).await.unwrap();
    // No table yet: every sweep fails.
    let sweeper = Sweeper::spawn(Arc::new(store.clone()), Duration::from_millis(5)).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    store.migrate().await.unwrap();
    let expired = store.create(token(), &record(b"x")).await.unwrap();
    clock.advance(Duration::from_secs(60));
    let mut raw = dir.raw().await;
    let count = async |raw: &mut SqliteConnection| -> i64 {
        let row = raw_sql("SELECT count(*) FROM sessions")
            .fetch_one(raw)
            .await;
        row.unwrap().get(0)
    };
    let emptied = async {
        while count(&mut raw).await > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), emptied)
        .await
        .unwrap();
    sweeper.shutdown().await;
    clock.set(common::START);
    store.create(expired, &record(b"x")).await.unwrap();
    clock.advance(Duration::from_secs(60));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(count(&mut raw).await, 1);
}

#[tokio::test]
async fn hostile_configuration_is_refused() {
    let options = StoreOptions::new;
    for (url, options) in [
        ("sqlite::memory:", options().deadline(Duration::ZERO)),
        ("sqlite::memory:", options().max_connections(0)),
        (
            "sqlite::memory:",
            options().table(TableName::new("a.b").unwrap()),
        ),
        ("sqlite:x?mode=nonsense", options()),
        ("sqlite:x?mode=ro", options()),
    ] {
        let opened = SqliteStore::connect(url, options).await;
        assert_eq!(kind(opened), Some(ErrorKind::InvalidConfig), "{url}");
    }
    let opened = SqliteStore::connect("sqlite:/no/such/directory/x.db", options()).await;
    assert_eq!(kind(opened), Some(ErrorKind::Unavailable));
}
