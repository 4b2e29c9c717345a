//! A directory that a group shares, as container platforms mount volumes.

use std::{
    env, fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use sessionkit::{ErrorKind, SessionStore};
use sessionkit_fs::{FsOptions, FsStore, Quota};

use crate::support::{Fixture, kind, record_of, snapshot, token_of};

const ROOT: &str = "SESSIONKIT_FS_TEST_VOLUME";

fn chmod(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// What the platform does to a volume before it starts the container.
fn mount_for_group(root: &Path) {
    chmod(root, 0o2770);
    for (path, ..) in snapshot(root) {
        let more = if path.is_dir() { 0o2770 } else { 0o660 };
        chmod(&path, mode(&path) | more);
    }
}

#[tokio::test]
async fn a_directory_that_its_group_shares_is_refused_with_the_name_of_the_option() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.root()).unwrap();
    chmod(fixture.root(), 0o2770);
    let error = fixture.options().open(fixture.root()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("group_access"), "{error}");
    assert_eq!(mode(fixture.root()), 0o2770);
}

#[tokio::test]
async fn a_directory_that_its_group_shares_is_used_when_the_operator_says_so() {
    let fixture = Fixture::new();
    let options = || {
        let quota = Quota::Sessions(100);
        fixture.options().quota(quota).group_access(true)
    };
    let old = record_of("alice", "old");
    // Closed as it is without the option, then mounted for a group, then opened by everybody again.
    let closed = fixture.open().await;
    closed.create(token_of(0), &old).await.unwrap();
    mount_for_group(&fixture.root());
    for round in 0..2 {
        let store = options().open(fixture.root()).await.unwrap();
        assert_eq!(store.load(&token_of(0)).await.unwrap().as_ref(), Some(&old));
        store.create(token_of(1 + round), &old).await.unwrap();
        store.touch(&token_of(0), old.expires_at).await.unwrap();
        let alice = old.subject.as_ref().unwrap();
        let listed = store.subjects().unwrap().list(alice, None, 9).await;
        assert_eq!(listed.unwrap().len(), 2 + round as usize);
    }
    assert_eq!(mode(fixture.root()), 0o2770);
    for (path, ..) in snapshot(&fixture.root()) {
        let expected = if path.is_dir() { 0o2770 } else { 0o660 };
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
    // To everybody else it is as closed as ever.
    let place = fixture.path_of(&token_of(0));
    chmod(&place, 0o664);
    let store = options().open(fixture.root()).await.unwrap();
    let corrupt = Some(ErrorKind::Corrupt);
    assert_eq!(kind(store.load(&token_of(0)).await), corrupt);
    chmod(fixture.root(), 0o2772);
    let error = options().open(fixture.root()).await.unwrap_err();
    assert!(error.to_string().contains("written by others"), "{error}");
}

#[tokio::test]
async fn a_new_directory_is_the_groups_where_the_operator_says_so() {
    let fixture = Fixture::new();
    let options = fixture.options().group_access(true);
    drop(options.open(fixture.root()).await.unwrap());
    assert_eq!(mode(fixture.root()), 0o2770);
}

/// The volume belongs to root, and the application's user changes from one release to the next.
#[tokio::test]
#[ignore = "needs root, to become other users"]
async fn a_volume_of_root_serves_every_user_of_its_group() {
    let fixture = Fixture::new();
    chmod(fixture.dir.path(), 0o755);
    fs::create_dir(fixture.root()).unwrap();
    chown(fixture.root(), Some(0), Some(4242)).unwrap();
    chmod(fixture.root(), 0o2770);
    for user in [1001, 1002, 1001] {
        let status = Command::new(env::current_exe().unwrap())
            .args(["--exact", "group::user_of_the_group", "--ignored"])
            .env(ROOT, fixture.root())
            .uid(user)
            .gid(4242)
            .status();
        assert!(status.unwrap().success(), "user {user}");
    }
    // Somebody else's directory is none of ours, nor a file of theirs in ours, although its mode is right.
    let store = FsOptions::new().group_access(true);
    let store = store.open(fixture.root()).await.unwrap();
    let place = fixture.path_of(&token_of(0));
    chown(&place, Some(1003), Some(1003)).unwrap();
    let corrupt = Some(ErrorKind::Corrupt);
    assert_eq!(kind(store.load(&token_of(0)).await), corrupt);
    chown(fixture.root(), Some(1003), Some(1003)).unwrap();
    let refused = FsOptions::new().group_access(true).open(fixture.root());
    let error = refused.await.unwrap_err();
    assert!(error.to_string().contains("not in"), "{error}");
}

#[tokio::test]
#[ignore = "a process that the test above starts"]
async fn user_of_the_group() {
    let root = PathBuf::from(env::var_os(ROOT).expect("started by the test above"));
    let error = FsStore::open(&root).await.unwrap_err();
    assert!(error.to_string().contains("group_access"), "{error}");
    let store = FsOptions::new().quota(Quota::Sessions(100));
    let store = store.group_access(true).open(&root).await.unwrap();
    let far = sessionkit::Record {
        expires_at: sessionkit::Timestamp::MAX,
        ..record_of("alice", "old")
    };
    match store.load(&token_of(0)).await.unwrap() {
        None => drop(store.create(token_of(0), &far).await.unwrap()),
        Some(old) => {
            let new = sessionkit::Record {
                revision: far.revision,
                ..old.clone()
            };
            store
                .update(&token_of(0), old.revision, &new)
                .await
                .unwrap();
        }
    }
    let alice = far.subject.as_ref().unwrap();
    let listed = store.subjects().unwrap().list(alice, None, 9).await;
    assert_eq!(listed.unwrap().len(), 1);
    store.create(token_of(1), &far).await.unwrap();
    store.delete(&token_of(1), None).await.unwrap();
    assert_eq!(store.sweep(10).await.unwrap(), 0);
}
