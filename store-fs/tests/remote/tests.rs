use std::{
    fs::{self, File},
    path::PathBuf,
    time::{Duration, Instant},
};

use sessionkit::{
    Clock, CookieName, ErrorKind, Label, OsEntropy, Record, Result, Revision, SessionStore, Token,
};
use sessionkit_conformance::Harness;
use tokio::time::timeout;

use super::RemoteStore;
use crate::harness::FsHarness;

const MINUTE: Duration = Duration::from_secs(60);

/// A session in a store of the other process.
struct Scene {
    harness: FsHarness,
    there: RemoteStore,
    token: Token,
    record: Record,
}

impl Scene {
    async fn set() -> Self {
        let harness = FsHarness::new();
        let root = harness.root("sessions").unwrap();
        let there = RemoteStore::open(root, harness.clock.clone());
        let there = there.await.unwrap();
        let cookie = CookieName::new("id").unwrap();
        let now = harness.clock.now();
        let record = Record {
            data: "first".into(),
            revision: Revision::from_bits(1),
            created_at: now,
            expires_at: now + MINUTE,
            subject: None,
            label: Label::default(),
        };
        let token = Token::random(&OsEntropy, &cookie).unwrap();
        let token = there.create(token, &record).await.unwrap();
        Self {
            harness,
            there,
            token,
            record,
        }
    }

    /// Takes the lock that every change of the session needs.
    fn lock(&self) -> File {
        let dir = File::open(self.dir()).unwrap();
        dir.lock().unwrap();
        dir
    }

    /// Polls a change until it waits for the lock, with its temporary file written.
    async fn wait_for_lock(&self, change: &mut (impl Future<Output = Result<Token>> + Unpin)) {
        while !self.is_changing() {
            timeout(PAUSE, &mut *change).await.unwrap_err();
        }
    }

    fn is_changing(&self) -> bool {
        fs::read_dir(self.dir()).unwrap().count() > 1
    }

    fn dir(&self) -> PathBuf {
        let root = self.harness.root("sessions").unwrap();
        root.join(&self.token.key().to_hex()[..2])
    }
}

const PAUSE: Duration = Duration::from_millis(10);

#[tokio::test]
async fn a_remote_store_is_the_same_store_in_another_process() {
    let scene = Scene::set().await;
    assert_ne!(scene.there.opened.process, std::process::id());
    let here = scene.harness.open("sessions").await.unwrap();
    assert_eq!(here.load(&scene.token).await.unwrap(), Some(scene.record));
    assert_eq!(here.capabilities(), scene.there.capabilities());
    assert_eq!(format!("{here:?}"), format!("{:?}", scene.there));
}

#[tokio::test]
async fn the_clock_moves_for_a_call_that_waits_in_the_other_process() {
    let scene = Scene::set().await;
    let lock = scene.lock();
    let later = scene.record.expires_at + MINUTE;
    let mut touch = scene.there.touch(&scene.token, later);
    scene.wait_for_lock(&mut touch).await;
    scene.harness.clock.advance(MINUTE);
    drop(lock);
    assert_eq!(touch.await.unwrap_err().kind(), ErrorKind::Missing);
}

#[tokio::test]
async fn a_dropped_call_is_dropped_in_the_other_process() {
    let scene = Scene::set().await;
    let _lock = scene.lock();
    let later = scene.record.expires_at + MINUTE;
    let mut touch = scene.there.touch(&scene.token, later);
    scene.wait_for_lock(&mut touch).await;
    drop(touch);
    let dropped = Instant::now();
    while scene.is_changing() {
        tokio::time::sleep(PAUSE).await;
    }
    // Otherwise it would have waited until its deadline.
    assert!(dropped.elapsed() < scene.harness.deadline() / 2);
}
