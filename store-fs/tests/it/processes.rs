//! Several processes on one directory. The others are this test program again, told by an
//! environment variable what to do.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use sessionkit::{ErrorKind, Record, SessionStore, Subject, Timestamp};
use sessionkit_fs::{FsStore, SyncPolicy};

use crate::support::{Fixture, kind, path_of, record, record_of, token_of};

const ROOT: &str = "SESSIONKIT_FS_TEST_ROOT";
const READY: &str = "ready to start";

/// Starts a process that runs one of the ignored tests, up to its call of [`ready`].
pub(crate) fn start(role: &str, root: &Path) -> Child {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", role])
        .args(["--ignored", "--nocapture"])
        .env(ROOT, root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let ready = lines.map(Result::unwrap).any(|line| line.contains(READY));
    assert!(ready, "{role} did not start");
    child
}

pub(crate) fn go(child: &mut Child) {
    writeln!(child.stdin.as_mut().unwrap()).unwrap();
}

/// In the child: tells that it is ready, and waits for [`go`].
pub(crate) fn ready() -> PathBuf {
    println!("{READY}");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    root()
}

pub(crate) fn root() -> PathBuf {
    env::var_os(ROOT)
        .expect("started by another test of this file")
        .into()
}

fn far(record: Record) -> Record {
    Record {
        expires_at: Timestamp::MAX,
        ..record
    }
}

#[tokio::test]
#[ignore = "a process that the test below starts"]
async fn increment_fifty_times() {
    let store = FsStore::open(root()).await.unwrap();
    let root = ready();
    let mut conflicts = 0_u32;
    for _ in 0..50 {
        loop {
            let old = store.load(&token_of(1)).await.unwrap().unwrap();
            let count: u32 = str::from_utf8(&old.data).unwrap().parse().unwrap();
            let new = far(record(&(count + 1).to_string()));
            match store.update(&token_of(1), old.revision, &new).await {
                Ok(_) => break,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}"),
            }
            conflicts += 1;
        }
    }
    let report = root.with_file_name(format!("conflicts-{}", std::process::id()));
    fs::write(report, conflicts.to_string()).unwrap();
}

#[tokio::test]
async fn eight_processes_lose_no_increment() {
    let fixture = Fixture::new();
    let store = FsStore::open(fixture.root()).await.unwrap();
    store.create(token_of(1), &far(record("0"))).await.unwrap();
    let mut children: Vec<_> = (0..8)
        .map(|_| start("processes::increment_fifty_times", &fixture.root()))
        .collect();
    children.iter_mut().for_each(go);
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let counted = store.load(&token_of(1)).await.unwrap().unwrap();
    assert_eq!(counted.data, "400");
    let conflicts: u32 = fs::read_dir(fixture.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| fs::read_to_string(path).unwrap().parse::<u32>().unwrap())
        .sum();
    println!("400 increments, {conflicts} conflicts");
    assert!(conflicts > 0, "the processes did not meet");
}

#[tokio::test]
#[ignore = "a process that the test below starts"]
async fn create_the_same_hundred() {
    let store = FsStore::open(root()).await.unwrap();
    let root = ready();
    let mine = std::process::id().to_string();
    let mut created = 0_u32;
    for number in 0..100 {
        match store
            .create(token_of(number), &far(record_of("alice", &mine)))
            .await
        {
            Ok(_) => created += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Exists, "{error:?}"),
        }
    }
    fs::write(root.with_file_name(mine), created.to_string()).unwrap();
}

#[tokio::test]
async fn four_processes_create_each_session_once() {
    let fixture = Fixture::new();
    let store = FsStore::open(fixture.root()).await.unwrap();
    let mut children: Vec<_> = (0..4)
        .map(|_| start("processes::create_the_same_hundred", &fixture.root()))
        .collect();
    children.iter_mut().for_each(go);
    let mut claimed = 0;
    for mut child in children {
        assert!(child.wait().unwrap().success());
        let report = fixture.dir.path().join(child.id().to_string());
        let claims: usize = fs::read_to_string(report).unwrap().parse().unwrap();
        let mut owned = 0;
        for number in 0..100 {
            let found = store.load(&token_of(number)).await.unwrap().unwrap();
            owned += usize::from(found.data == child.id().to_string());
        }
        assert_eq!(claims, owned);
        claimed += claims;
    }
    assert_eq!(claimed, 100);
    let alice = Subject::new("alice").unwrap();
    let index = store.subjects().unwrap();
    assert_eq!(index.list(&alice, None, 1000).await.unwrap().len(), 100);
    assert_eq!(index.revoke_all(&alice, None).await.unwrap(), 100);
}

#[tokio::test]
#[ignore = "a process that the test below starts"]
async fn hold_the_lock() {
    let path = path_of(&root(), &token_of(1));
    let dir = fs::File::open(path.parent().unwrap()).unwrap();
    dir.lock().unwrap();
    ready();
    unreachable!("it is killed");
}

#[tokio::test]
async fn the_lock_of_a_killed_process_is_free() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let old = record("old");
    store.create(token_of(1), &old).await.unwrap();
    let mut holder = start("processes::hold_the_lock", &fixture.root());
    let new = record("new");
    let hasty = fixture.options().deadline(Duration::from_millis(200));
    let hasty = hasty.open(fixture.root()).await.unwrap();
    let refused = hasty.update(&token_of(1), old.revision, &new).await;
    assert_eq!(kind(refused), Some(ErrorKind::Unavailable));
    holder.kill().unwrap();
    holder.wait().unwrap();
    store
        .update(&token_of(1), old.revision, &new)
        .await
        .unwrap();
}

#[tokio::test]
#[ignore = "a process that the test below starts"]
async fn write_until_killed() {
    let options = sessionkit_fs::FsOptions::new().sync(SyncPolicy::None);
    let store = options.open(root()).await.unwrap();
    ready();
    for letter in ('a'..='z').cycle() {
        let old = store.load(&token_of(1)).await.unwrap().unwrap();
        let new = far(record(&letter.to_string().repeat(256 << 10)));
        store
            .update(&token_of(1), old.revision, &new)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_writer_killed_at_any_moment_leaves_a_whole_session() {
    let fixture = Fixture::new();
    let store = FsStore::open(fixture.root()).await.unwrap();
    store.create(token_of(1), &far(record("-"))).await.unwrap();
    for round in 0..10 {
        let before = store.load(&token_of(1)).await.unwrap().unwrap().revision;
        let mut writer = start("processes::write_until_killed", &fixture.root());
        go(&mut writer);
        while store.load(&token_of(1)).await.unwrap().unwrap().revision == before {}
        // Somewhere within one of the writes that follow.
        std::thread::sleep(Duration::from_micros(700 * round));
        writer.kill().unwrap();
        writer.wait().unwrap();
        let found = store.load(&token_of(1)).await.unwrap().unwrap();
        assert!(found.data.windows(2).all(|pair| pair[0] == pair[1]));
        store.sweep(10).await.unwrap();
        let shard = fixture.path_of(&token_of(1)).parent().unwrap().to_owned();
        assert_eq!(fs::read_dir(shard).unwrap().count(), 1, "a leftover");
    }
}
