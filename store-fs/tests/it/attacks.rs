//! What somebody who can write to the directory, or near it, may try.

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::support::{Fixture, kind, path_of, record, record_of, snapshot, token, token_of};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use sessionkit::{CookieName, ErrorKind, SessionStore, StoreKey, Subject, Token};
use sessionkit_fs::{FsStore, Quota};

const CORRUPT: Option<ErrorKind> = Some(ErrorKind::Corrupt);

fn chmod(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Puts something in a session's place; every call must answer `Corrupt` and touch nothing outside,
/// a sweep must step over it, and `delete` must remove it where `is_removable`.
async fn plant(what: &str, is_removable: bool, put: impl FnOnce(&Path, &Path)) {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let (victim, other) = (token(), token());
    store
        .create(victim.clone(), &record("victim"))
        .await
        .unwrap();
    store.create(other.clone(), &record("other")).await.unwrap();

    let outside = fixture.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let secret = outside.join("secret");
    // What lies outside is a session file itself, so that only the link is wrong with it.
    fs::copy(fixture.path_of(&victim), &secret).unwrap();
    chmod(&secret, 0o600);
    let place = fixture.path_of(&victim);
    fs::remove_file(&place).unwrap();
    put(&place, &secret);
    let before = (snapshot(&outside), fs::metadata(&secret).unwrap().mtime());

    let new = record("new");
    let revision = new.revision;
    let kinds = [
        ("load", kind(store.load(&victim).await)),
        ("create", kind(store.create(victim.clone(), &new).await)),
        ("update", kind(store.update(&victim, revision, &new).await)),
        ("touch", kind(store.touch(&victim, new.expires_at).await)),
        (
            "delete of a revision",
            kind(store.delete(&victim, Some(revision)).await),
        ),
    ];
    for (call, kind) in kinds {
        assert_eq!(kind, CORRUPT, "{what}: {call}");
    }
    fixture.clock.advance(crate::support::MINUTE * 2);
    assert_eq!(
        store.sweep(100).await.unwrap(),
        1,
        "{what}: the other session"
    );
    assert!(place.symlink_metadata().is_ok(), "{what}: swept");

    let deleted = kind(store.delete(&victim, None).await);
    if is_removable {
        assert_eq!(deleted, None, "{what}: delete");
        assert_eq!(store.load(&victim).await.unwrap(), None, "{what}");
        assert!(place.symlink_metadata().is_err(), "{what}");
    } else {
        assert_eq!(deleted, CORRUPT, "{what}: delete");
    }
    let after = (snapshot(&outside), fs::metadata(&secret).unwrap().mtime());
    assert_eq!(before, after, "{what}: outside");
}

#[tokio::test]
async fn a_planted_symbolic_link_is_refused() {
    plant("symbolic link", true, |place, secret| {
        symlink(secret, place).unwrap()
    })
    .await;
    plant("dangling link", true, |place, secret| {
        symlink(secret.with_file_name("nothing"), place).unwrap();
    })
    .await;
}

/// A link cannot be planted by whoever cannot write to the directory, and `cp -al` makes them of all
/// files. Writes replace files, so that what the other name shows stays as it was.
#[tokio::test]
async fn a_backup_by_hard_links_harms_neither_the_store_nor_itself() {
    let fixture = Fixture::new();
    let options = || fixture.options().quota(Quota::Sessions(100));
    let store = options().open(fixture.root()).await.unwrap();
    let old = record_of("alice", "old");
    for number in 0..4 {
        store.create(token_of(number), &old).await.unwrap();
    }
    let backup = fixture.dir.path().join("backup");
    let copied = Command::new("cp")
        .arg("-al")
        .args([fixture.root(), backup.clone()])
        .status();
    assert!(copied.unwrap().success());
    let before = sessions_in(&backup);

    let store = options().open(fixture.root()).await.unwrap();
    assert_eq!(store.load(&token_of(0)).await.unwrap().as_ref(), Some(&old));
    let new = record_of("bob", "new");
    store
        .update(&token_of(1), old.revision, &new)
        .await
        .unwrap();
    let later = old.expires_at + crate::support::MINUTE;
    store.touch(&token_of(2), later).await.unwrap();
    store.delete(&token_of(3), None).await.unwrap();
    let alice = old.subject.as_ref().unwrap();
    let index = store.subjects().unwrap();
    assert_eq!(index.list(alice, None, 9).await.unwrap().len(), 2);
    assert_eq!(index.revoke_all(alice, None).await.unwrap(), 2);
    assert_eq!(sessions_in(&backup), before);

    let restored = options().open(&backup).await.unwrap();
    for number in 0..4 {
        let found = restored.load(&token_of(number)).await.unwrap();
        assert_eq!(found.as_ref(), Some(&old), "{number}");
    }
}

/// What is in the directories of a store, without the counts.
fn sessions_in(root: &Path) -> Vec<(std::path::PathBuf, u32, Vec<u8>)> {
    let mut files = snapshot(root);
    files.retain(|(path, ..)| path.is_file() && !path.ends_with("usage"));
    files
}

#[tokio::test]
async fn a_planted_fifo_is_refused_and_blocks_nobody() {
    plant("FIFO", true, |place, _| {
        mknodat(CWD, place, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_planted_socket_is_refused() {
    plant("socket", true, |place, _| {
        // The path is too long for an address.
        let short = place.ancestors().nth(3).unwrap().join("s");
        drop(UnixListener::bind(&short).unwrap());
        fs::rename(short, place).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_planted_directory_is_refused_and_nothing_in_it_is_removed() {
    plant("directory", true, |place, _| fs::create_dir(place).unwrap()).await;
    plant("directory with a file", false, |place, _| {
        fs::create_dir(place).unwrap();
        fs::write(place.join("file"), "").unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_file_that_is_open_to_others_is_refused() {
    for others in [0o604, 0o640, 0o602, 0o666] {
        plant("mode", true, |place, secret| {
            fs::copy(secret, place).unwrap();
            chmod(place, others);
        })
        .await;
    }
}

#[tokio::test]
#[ignore = "needs root, to give a file to somebody else"]
async fn a_file_of_another_user_is_refused() {
    plant("owner", true, |place, secret| {
        fs::copy(secret, place).unwrap();
        std::os::unix::fs::chown(place, Some(12345), None).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_directory_replaced_by_a_link_is_refused() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let token = token();
    store
        .create(token.clone(), &record("inside"))
        .await
        .unwrap();
    let shard = fixture.path_of(&token).parent().unwrap().to_owned();
    let outside = fixture.dir.path().join("outside");
    fs::rename(&shard, &outside).unwrap();
    symlink(&outside, &shard).unwrap();
    let before = snapshot(&outside);
    assert_eq!(kind(store.load(&token).await), CORRUPT);
    assert_eq!(
        kind(store.create(token.clone(), &record("new")).await),
        CORRUPT
    );
    assert_eq!(kind(store.delete(&token, None).await), CORRUPT);
    assert_eq!(kind(store.sweep(10).await), CORRUPT);
    assert_eq!(snapshot(&outside), before);
    assert_eq!(kind(fixture.options().open(fixture.root()).await), CORRUPT);
}

#[tokio::test]
async fn an_index_replaced_by_a_link_is_refused() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let outside = fixture.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, fixture.root().join("subjects")).unwrap();
    let (token, alice) = (token(), Subject::new("alice").unwrap());
    assert_eq!(
        kind(store.create(token, &record_of("alice", "")).await),
        CORRUPT
    );
    let index = store.subjects().unwrap();
    assert_eq!(kind(index.list(&alice, None, 10).await), CORRUPT);
    assert!(snapshot(&outside).is_empty());
}

/// No token is ever a path: the store sees its hash, and a hash has no other form than digits.
#[tokio::test]
async fn a_traversal_cannot_be_expressed() {
    let hostile = [
        "../../../../etc/passwd",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a/b",
        "a\0b",
        "%2e%2e%2f",
        "..\\..",
        "subjects",
        "usage",
        ".tmp-0000000000000000-0000000000000000",
    ];
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let cookie = CookieName::new("id").unwrap();
    for text in hostile {
        assert_eq!(StoreKey::from_hex(text), None);
        let token = Token::from_bytes(text.as_bytes().to_vec(), &cookie);
        assert_eq!(store.load(&token).await.unwrap(), None);
        store.create(token.clone(), &record(text)).await.unwrap();
        assert_eq!(store.load(&token).await.unwrap().unwrap().data, text);
        assert!(fixture.path_of(&token).is_file());
    }
    let beside: Vec<_> = fs::read_dir(fixture.dir.path()).unwrap().collect();
    assert_eq!(beside.len(), 1, "{beside:?}");
    let files = snapshot(&fixture.root());
    let sessions = files.iter().filter(|(path, ..)| path.is_file()).count();
    assert_eq!(sessions, hostile.len());
}

#[tokio::test]
async fn everything_is_created_for_the_owner_alone() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    store
        .create(token(), &record_of("alice", ""))
        .await
        .unwrap();
    assert_eq!(mode(fixture.root()), 0o700);
    for (path, ..) in snapshot(&fixture.root()) {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
}

#[tokio::test]
async fn a_directory_that_others_can_write_to_is_refused() {
    for others in [0o777, 0o770, 0o1777, 0o702] {
        let fixture = Fixture::new();
        fs::create_dir(fixture.root()).unwrap();
        chmod(fixture.root(), others);
        let error = FsStore::open(fixture.root()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("written by others"), "{error}");
        assert_eq!(mode(fixture.root()), others);
    }
}

#[tokio::test]
async fn a_directory_within_that_others_can_write_to_is_refused() {
    for within in ["ab", "subjects", "subjects/ab"] {
        let fixture = Fixture::new();
        drop(fixture.open().await);
        let mut path = fixture.root();
        for name in within.split('/') {
            path.push(name);
            fs::create_dir(&path).unwrap();
            chmod(&path, 0o700);
        }
        chmod(&path, 0o720);
        let error = FsStore::open(fixture.root()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{within}");
        assert!(error.to_string().contains(within), "{error}");
    }
}

#[tokio::test]
async fn a_directory_that_others_can_only_read_is_closed_to_them() {
    let fixture = Fixture::new();
    let token = token();
    let store = fixture.open().await;
    store.create(token.clone(), &record("kept")).await.unwrap();
    let shard = fixture.path_of(&token).parent().unwrap().to_owned();
    chmod(fixture.root(), 0o755);
    chmod(&shard, 0o755);
    let store = fixture.open().await;
    assert_eq!((mode(fixture.root()), mode(shard)), (0o700, 0o700));
    assert_eq!(store.load(&token).await.unwrap().unwrap().data, "kept");
}

#[tokio::test]
async fn a_directory_that_serves_something_else_is_not_closed_to_others() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.root()).unwrap();
    fs::write(fixture.root().join("index.html"), "").unwrap();
    chmod(fixture.root(), 0o755);
    let error = FsStore::open(fixture.root()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("other files"), "{error}");
    assert_eq!(mode(fixture.root()), 0o755);
}

#[tokio::test]
async fn a_root_that_is_no_directory_is_refused() {
    let fixture = Fixture::new();
    let target = fixture.dir.path().join("target");
    fs::create_dir(&target).unwrap();
    chmod(&target, 0o700);
    symlink(&target, fixture.root()).unwrap();
    let with_slash = fixture.root().join("");
    for path in [&fixture.root(), &with_slash] {
        let error = FsStore::open(path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{}", path.display());
    }
    let file = fixture.dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [
        &file,
        &fixture.dir.path().join("no parent/sessions"),
        Path::new(""),
    ] {
        assert_eq!(
            kind(FsStore::open(path).await),
            Some(ErrorKind::InvalidConfig)
        );
    }
    assert!(snapshot(&target).is_empty());
}

#[tokio::test]
async fn what_belongs_to_others_is_ignored_and_never_removed() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let token = token();
    store
        .create(token.clone(), &record_of("alice", ""))
        .await
        .unwrap();
    let shard = fixture.path_of(&token).parent().unwrap().to_owned();
    let other_shard = if shard.ends_with("ab") { "cd" } else { "ab" };
    let mine = token.key().to_hex();
    let foreign = [
        fixture.root().join("README"),
        fixture.root().join(".hidden"),
        fixture.root().join("AB"),
        shard.join("README"),
        shard.join(".tmp-"),
        shard.join(".tmp-note"),
        shard.join(mine.to_uppercase()),
        shard.join(&mine[..63]),
        shard.join(format!("{mine}0")),
        // A key of another directory.
        fixture.root().join(other_shard).join(&mine),
        fixture.root().join("subjects").join("README"),
        fixture
            .root()
            .join("subjects")
            .join(other_shard)
            .join("README"),
    ];
    for path in &foreign {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "foreign").unwrap();
    }
    symlink("/etc/passwd", shard.join("link")).unwrap();
    fixture.clock.advance(crate::support::MINUTE * 2);
    assert_eq!(store.sweep(100).await.unwrap(), 1);
    store.delete(&token, None).await.unwrap();
    assert_eq!(store.sweep(100).await.unwrap(), 0);
    for path in &foreign {
        assert_eq!(
            fs::read_to_string(path).unwrap(),
            "foreign",
            "{}",
            path.display()
        );
    }
    assert!(shard.join("link").symlink_metadata().is_ok());
}

/// Whoever exchanges the file between a check of its name and its opening gains nothing, because
/// what is checked is what was opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_swapped_while_it_is_opened_is_never_followed() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let (token, inside) = (token(), record("inside"));
    store.create(token.clone(), &inside).await.unwrap();

    let outside = fixture.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    chmod(&outside, 0o700);
    let elsewhere = FsStore::open(&outside).await.unwrap();
    elsewhere
        .create(token.clone(), &record("outside"))
        .await
        .unwrap();
    let secret = path_of(&outside, &token);
    let before = snapshot(&outside);

    let place = fixture.path_of(&token);
    let contents = fs::read(&place).unwrap();
    let [file, link] = ["file", "link"].map(|name| place.with_file_name(name));

    let stop = AtomicBool::new(false);
    let (mut loaded, mut refused) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                symlink(&secret, &link).unwrap();
                fs::rename(&link, &place).unwrap();
                fs::write(&file, &contents).unwrap();
                chmod(&file, 0o600);
                fs::rename(&file, &place).unwrap();
            }
        });
        let runtime = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            for _ in 0..4000 {
                match runtime.block_on(store.load(&token)) {
                    Ok(Some(found)) => {
                        assert_eq!(found, inside, "read what is outside");
                        loaded += 1;
                    }
                    Ok(None) => panic!("there is always something"),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Corrupt);
                        refused += 1;
                    }
                }
                let _ = runtime.block_on(store.touch(&token, inside.expires_at));
            }
        });
        stop.store(true, Ordering::Relaxed);
    });
    println!("{loaded} loaded, {refused} refused");
    assert!(loaded > 0 && refused > 0, "{loaded} {refused}");
    assert_eq!(snapshot(&outside), before);
}
