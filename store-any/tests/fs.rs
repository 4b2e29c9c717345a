//! `fs:` opens a directory, and refuses what is none.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use async_trait::async_trait;
use sessionkit::{
    Clock, CookieName, Durability, ErrorKind, Label, ManualClock, OsEntropy, Record, Result,
    Revision, SessionStore, SystemClock, Timestamp, Token,
};
use sessionkit_any::{Opener, open};
use sessionkit_conformance::Harness;
use tempfile::TempDir;

/// Opens `fs:` with the kit's namespaces.
struct Directory {
    dir: TempDir,
    clock: Arc<ManualClock>,
}

impl Directory {
    fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
            clock: Arc::new(ManualClock::new(SystemClock.now())),
        }
    }

    fn url(&self, rest: &str) -> String {
        format!("fs://{}/base{rest}", self.dir.path().display())
    }
}

#[async_trait]
impl Harness for Directory {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        Opener::new()
            .clock(self.clock.clone())
            .namespace(namespace)
            .open(&self.url("?durability=none"))
            .await
    }

    async fn destroy(&self, namespace: &str) -> Result<()> {
        let path = self.dir.path().join("base").join(namespace);
        match path.is_dir() {
            true => std::fs::remove_dir_all(path).map_err(|_| ErrorKind::Unavailable.into()),
            false => Ok(()),
        }
    }

    fn clock(&self) -> Option<Arc<ManualClock>> {
        Some(Arc::clone(&self.clock))
    }
}

sessionkit_conformance::suite!(Directory::new());

fn token() -> Token {
    Token::random(&OsEntropy, &CookieName::new("id").unwrap()).unwrap()
}

fn record() -> Record {
    Record {
        data: "data".into(),
        revision: Revision::random(&OsEntropy).unwrap(),
        created_at: Timestamp::MIN,
        expires_at: Timestamp::MAX,
        subject: None,
        label: Label::default(),
    }
}

#[tokio::test]
async fn a_directory_is_created_and_found_again() {
    let directory = Directory::new();
    let store = open(&directory.url("%20of%20sessions")).await.unwrap();
    assert_eq!(store.capabilities().durability, Durability::Disk);
    let token = store.create(token(), &record()).await.unwrap();
    assert!(directory.dir.path().join("base of sessions").is_dir());
    let again = open(&directory.url("%20of%20sessions?durability=data&quota=1"))
        .await
        .unwrap();
    assert_eq!(again.capabilities().durability, Durability::System);
    assert!(again.load(&token).await.unwrap().is_some());
    let refused = again.create(self::token(), &record()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Full);
}

#[tokio::test]
async fn a_directory_is_shared_with_its_group_where_the_url_says_so() {
    use std::os::unix::fs::MetadataExt;
    let directory = Directory::new();
    let url = directory.url("?group_access=true&namespace=app");
    for _ in 0..2 {
        open(&url).await.unwrap();
    }
    for path in ["base", "base/app"] {
        let meta = directory.dir.path().join(path).metadata().unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o2770, "{path}");
    }
    let closed = directory.url("?namespace=app");
    let error = open(&closed).await.unwrap_err();
    assert!(error.to_string().contains("group_access=true"), "{error}");
}

#[tokio::test]
async fn what_is_no_directory_or_option_is_refused() {
    let directory = Directory::new();
    for rest in [
        "?durability=Full",
        "?durability=",
        "?quota=many",
        "?quota=1MB",
        "?group_access=yes",
        "?namespace=a/b",
        "?namespace=..",
        "?namespace=ab",
        "?namespace=subjects",
        "?max_sessions=1",
        "/without/parent",
        "%00",
        "%ff",
    ] {
        let error = open(&directory.url(rest)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{rest}");
    }
    for url in [
        "fs:",
        "fs://",
        "fs:///",
        "fs:relative",
        "fs:/path",
        "fs://hunter2/path",
    ] {
        let error = open(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}
