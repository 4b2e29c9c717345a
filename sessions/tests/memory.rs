//! The memory store under threads that are held up in the wrong place.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use futures_util::FutureExt;
use sessionkit::{
    Clock, CookieName, ErrorKind, Label, ManualClock, MemoryStore, OsEntropy, Record, Revision,
    SessionStore, Timestamp, Token,
};

/// A clock that, once armed, holds up the next caller after it has looked.
#[derive(Debug)]
struct HoldingClock {
    time: ManualClock,
    armed: AtomicBool,
    looked: Sender<()>,
    go: Mutex<Receiver<()>>,
}

impl Clock for HoldingClock {
    fn now(&self) -> Timestamp {
        let now = self.time.now();
        if self.armed.swap(false, Ordering::SeqCst) {
            self.looked.send(()).expect("the test waits for it");
            let go = self.go.lock().expect("nobody panics with the lock");
            go.recv().expect("the test lets go");
        }
        now
    }
}

#[test]
fn a_touch_that_is_held_up_does_not_revive_what_another_call_found_expired() {
    let ((looked, has_looked), (release, go)) = (channel(), channel());
    let clock = Arc::new(HoldingClock {
        time: ManualClock::new(Timestamp::MIN),
        armed: AtomicBool::new(false),
        looked,
        go: Mutex::new(go),
    });
    let store = MemoryStore::new().with_clock(clock.clone());
    let token = Token::random(&OsEntropy, &CookieName::new("id").unwrap()).unwrap();
    let record = Record {
        data: "hello".into(),
        revision: Revision::from_bits(1),
        created_at: Timestamp::MIN,
        expires_at: Timestamp::from_millis(50),
        subject: None,
        label: Label::default(),
    };
    let created = store.create(token.clone(), &record).now_or_never();
    created.unwrap().unwrap();

    let later = Timestamp::from_millis(1_000);
    clock.armed.store(true, Ordering::SeqCst);
    let (found, touched) = thread::scope(|scope| {
        let touch = scope.spawn(|| store.touch(&token, later).now_or_never().unwrap());
        has_looked.recv().unwrap();
        clock.time.set(Timestamp::from_millis(100));
        let (done, loaded) = channel();
        let load = scope.spawn({
            let (store, token) = (&store, &token);
            move || {
                let found = store.load(token).now_or_never().unwrap().unwrap();
                done.send(()).unwrap();
                found
            }
        });
        // Either the load does not wait for the touch, or it waits until the touch has ended.
        let _ = loaded.recv_timeout(Duration::from_millis(200));
        release.send(()).unwrap();
        (load.join().unwrap(), touch.join().unwrap())
    });
    match found {
        None => assert_eq!(touched.unwrap_err().kind(), ErrorKind::Missing),
        Some(found) => assert_eq!((found.expires_at, touched.is_ok()), (later, true)),
    }
}
