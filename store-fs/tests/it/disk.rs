//! A file system that is full, out of files, or read-only: a small tmpfs in a mount namespace of a
//! process of its own.

use std::{
    env,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::mount::{MountFlags, mount, mount_remount};
use sessionkit::{ErrorKind, SessionStore};
use sessionkit_fs::{FsOptions, FsStore};

use crate::support::{Fixture, MINUTE, kind, record, record_of, snapshot, token_of};

const WITHIN: &str = "SESSIONKIT_FS_TEST_NAMESPACE";

const FULL: Option<ErrorKind> = Some(ErrorKind::Full);
const UNAVAILABLE: Option<ErrorKind> = Some(ErrorKind::Unavailable);

/// Runs a test again in a namespace where it may mount; returns whether this is that run.
fn in_namespace(test: &str) -> bool {
    if env::var_os(WITHIN).is_some() {
        return true;
    }
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", &format!("disk::{test}"), "--nocapture"])
        .env(WITHIN, "1")
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "{test} failed, or this machine lets nobody mount a file system: try `unshare -rm true`"
    );
    false
}

fn small_disk(fixture: &Fixture, options: &str) -> PathBuf {
    let path = fixture.dir.path().join("disk");
    fs::create_dir(&path).unwrap();
    let options = std::ffi::CString::new(options).unwrap();
    mount(
        "tmpfs",
        &path,
        "tmpfs",
        MountFlags::empty(),
        options.as_c_str(),
    )
    .unwrap();
    path
}

fn fill(path: &Path) {
    let mut file = File::create(path.join("filler")).unwrap();
    while file.write(&[0; 512]).is_ok() {}
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_keeps_what_is_there() {
    if !in_namespace("a_full_disk_refuses_writes_and_keeps_what_is_there") {
        return;
    }
    let fixture = Fixture::new();
    let disk = small_disk(&fixture, "size=512k");
    let root = disk.join("sessions");
    let store = fixture.options().open(&root).await.unwrap();
    let old = record_of("alice", "old");
    for number in 0..3 {
        store.create(token_of(number), &old).await.unwrap();
    }
    fill(&disk);
    let before = snapshot(&root);
    let new = record_of("bob", &"new".repeat(10_000));
    for _ in 0..3 {
        assert_eq!(kind(store.create(token_of(9), &new).await), FULL);
        assert_eq!(
            kind(store.update(&token_of(0), old.revision, &new).await),
            FULL
        );
        assert_eq!(kind(store.touch(&token_of(0), old.expires_at).await), FULL);
        assert_eq!(kind(store.ping().await), FULL);
    }
    assert_eq!(store.load(&token_of(0)).await.unwrap().as_ref(), Some(&old));
    assert_eq!(store.load(&token_of(9)).await.unwrap(), None);
    // Nothing half written takes up room; a directory made for it may stay until a sweep.
    let files = |snapshot: Vec<(PathBuf, u32, Vec<u8>)>| {
        let mut files: Vec<_> = snapshot
            .into_iter()
            .filter(|file| file.0.is_file())
            .collect();
        // An index entry is a hint, which may be there before its record.
        files.retain(|(path, ..)| !path.starts_with(root.join("subjects")));
        files
    };
    assert_eq!(files(snapshot(&root)), files(before));

    store.delete(&token_of(1), None).await.unwrap();
    assert_eq!(store.load(&token_of(1)).await.unwrap(), None);
    fixture.clock.advance(MINUTE);
    assert_eq!(store.sweep(10).await.unwrap(), 2);
    fs::remove_file(disk.join("filler")).unwrap();
    store.create(token_of(9), &new).await.unwrap();
}

#[tokio::test]
async fn a_disk_without_room_for_another_file_is_full() {
    if !in_namespace("a_disk_without_room_for_another_file_is_full") {
        return;
    }
    let fixture = Fixture::new();
    let root = small_disk(&fixture, "nr_inodes=40").join("sessions");
    let store = FsOptions::new().open(&root).await.unwrap();
    let far = |data: &str| sessionkit::Record {
        expires_at: sessionkit::Timestamp::MAX,
        ..record(data)
    };
    let mut created = 0;
    let refused = loop {
        match store.create(token_of(created), &far("x")).await {
            Ok(_) => created += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::Full);
    assert!(created > 5);
    for number in 0..created {
        assert_eq!(
            store.load(&token_of(number)).await.unwrap().unwrap().data,
            "x"
        );
    }
    store.delete(&token_of(0), None).await.unwrap();
    store.sweep(10).await.unwrap();
    store.create(token_of(0), &far("y")).await.unwrap();
}

#[tokio::test]
async fn a_read_only_disk_is_read_and_not_written() {
    if !in_namespace("a_read_only_disk_is_read_and_not_written") {
        return;
    }
    let fixture = Fixture::new();
    let disk = small_disk(&fixture, "size=1m");
    let root = disk.join("sessions");
    let store = fixture.options().open(&root).await.unwrap();
    let (old, new) = (record_of("alice", "old"), record_of("alice", "new"));
    store.create(token_of(0), &old).await.unwrap();
    let before = snapshot(&root);
    mount_remount(&disk, MountFlags::RDONLY, c"size=1m").unwrap();

    // Also for a process that starts only now.
    for store in [&store, &fixture.options().open(&root).await.unwrap()] {
        assert_eq!(store.load(&token_of(0)).await.unwrap().as_ref(), Some(&old));
        let alice = old.subject.as_ref().unwrap();
        let index = store.subjects().unwrap();
        assert_eq!(index.list(alice, None, 9).await.unwrap().len(), 1);
        assert_eq!(store.sweep(9).await.unwrap(), 0);
        assert_eq!(kind(store.create(token_of(1), &new).await), UNAVAILABLE);
        assert_eq!(
            kind(store.update(&token_of(0), old.revision, &new).await),
            UNAVAILABLE
        );
        assert_eq!(
            kind(store.touch(&token_of(0), old.expires_at).await),
            UNAVAILABLE
        );
        assert_eq!(kind(store.delete(&token_of(0), None).await), UNAVAILABLE);
        assert_eq!(kind(index.revoke_all(alice, None).await), UNAVAILABLE);
        assert_eq!(kind(store.ping().await), UNAVAILABLE);
        let error = store.delete(&token_of(0), None).await.unwrap_err();
        assert!(error.to_string().contains("read-only"), "{error}");
    }
    assert_eq!(
        kind(FsStore::open(disk.join("new")).await),
        Some(ErrorKind::InvalidConfig)
    );
    assert_eq!(snapshot(&root), before);

    mount_remount(&disk, MountFlags::empty(), c"size=1m").unwrap();
    store.ping().await.unwrap();
    store
        .update(&token_of(0), old.revision, &new)
        .await
        .unwrap();
}
