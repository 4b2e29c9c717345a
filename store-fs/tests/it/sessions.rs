//! What an application sees that runs in several processes on one directory.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};
use sessionkit::{
    Capabilities, ErrorKind, Key, Keyring, Record, Result, Revision, SessionManager, SessionStore,
    SubjectIndex, Timestamp, Token,
};
use sessionkit_fs::FsStore;
use sha2::{Digest, Sha256};

use crate::{
    processes::{go, ready, root, start},
    support::Fixture,
};

/// Counts the updates that came too late.
#[derive(Debug)]
struct Counting {
    store: FsStore,
    conflicts: AtomicU32,
}

#[async_trait]
impl SessionStore for Counting {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        self.store.create(token, record).await
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        self.store.load(token).await
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        let updated = self.store.update(token, expected, record).await;
        let is_late = |error: &sessionkit::Error| error.kind() == ErrorKind::Conflict;
        let late = updated.as_ref().is_err_and(is_late);
        self.conflicts.fetch_add(late.into(), Ordering::Relaxed);
        updated
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        self.store.touch(token, expires_at).await
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        self.store.delete(token, expected).await
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        self.store.sweep(limit).await
    }

    async fn ping(&self) -> Result<()> {
        self.store.ping().await
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        self.store.subjects()
    }
}

/// The same key in every process.
fn manager(store: impl SessionStore) -> SessionManager {
    let key = Key::from_bytes(&Sha256::digest(b"a key for tests")).unwrap();
    SessionManager::new(store, Keyring::new([key]).unwrap()).unwrap()
}

/// One request that counts. Returns the count, and the cookie of the response.
async fn visit(manager: &SessionManager, cookie: Option<&str>) -> (u32, Option<String>) {
    let mut request = HeaderMap::new();
    request.extend(cookie.map(|cookie| (COOKIE, HeaderValue::from_str(cookie).unwrap())));
    let sessions = manager.begin(&request);
    let session = sessions.session().await.unwrap();
    session
        .update("count", |count: Option<u32>| count.unwrap_or(0) + 1)
        .unwrap();
    let mut response = HeaderMap::new();
    sessions.finish(&mut response).await.unwrap();
    let cookie = response.get(SET_COOKIE).map(|cookie| {
        let pair = cookie.to_str().unwrap().split(';').next();
        pair.unwrap().to_owned()
    });
    (session.get("count").unwrap().unwrap(), cookie)
}

#[tokio::test]
#[ignore = "a process that the test below starts"]
async fn count_fifty_visits() {
    let store = Arc::new(Counting {
        store: FsStore::open(root()).await.unwrap(),
        conflicts: AtomicU32::new(0),
    });
    let manager = manager(Arc::clone(&store));
    let root = ready();
    let cookie = fs::read_to_string(root.with_file_name("cookie")).unwrap();
    for _ in 0..50 {
        visit(&manager, Some(&cookie)).await;
    }
    let report = root.with_file_name(format!("conflicts-{}", std::process::id()));
    fs::write(report, store.conflicts.load(Ordering::Relaxed).to_string()).unwrap();
}

#[tokio::test]
async fn eight_processes_count_each_visit_of_one_session() {
    let fixture = Fixture::new();
    let manager = manager(FsStore::open(fixture.root()).await.unwrap());
    let (first, cookie) = visit(&manager, None).await;
    assert_eq!(first, 1);
    let cookie = cookie.unwrap();
    fs::write(fixture.dir.path().join("cookie"), &cookie).unwrap();
    let mut children: Vec<_> = (0..8)
        .map(|_| start("sessions::count_fifty_visits", &fixture.root()))
        .collect();
    children.iter_mut().for_each(go);
    let mut conflicts = 0;
    for mut child in children {
        assert!(child.wait().unwrap().success());
        let report = format!("conflicts-{}", child.id());
        let report = fs::read_to_string(fixture.dir.path().join(report)).unwrap();
        conflicts += report.parse::<u32>().unwrap();
    }
    // The first one, the four hundred, and the one that looks.
    assert_eq!(visit(&manager, Some(&cookie)).await.0, 402);
    println!("400 visits, {conflicts} conflicts");
    assert!(conflicts > 0, "the processes did not meet");
}
