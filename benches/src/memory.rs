use std::{
    collections::HashMap,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use sessionkit::{
    Clock, ManualClock, MemoryStore, Record, Revision, SessionStore, Subject, SubjectIndex,
    Timestamp, Token,
};
use tower_sessions::{
    SessionStore as _,
    session::{Id, Record as TowerRecord},
};

use crate::{
    measure::{Comparison, time_tasks},
    payload::{new_tokens, record, visitor},
};

const SESSIONS: usize = 10_000;
const COUNT: usize = 100_000;

pub async fn run(rounds: usize) {
    for tasks in [1, 64] {
        load(tasks, rounds).await;
        update(tasks, rounds).await;
        create(tasks, rounds).await;
        delete(tasks, rounds).await;
    }
    stalls();
}

/// The longest time for which one call held its thread at a million sessions. On a machine that
/// does something else the scheduler is in it. The tokens are kept: an allocator that puts off what
/// a million of them leave behind would do it in the middle of a call.
fn stalls() {
    const MANY: usize = 1_000_000;
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)));
    let store = MemoryStore::new()
        .with_clock(clock.clone())
        .with_max_sessions(MANY);
    let record = |minutes: u64| Record {
        expires_at: clock.now() + Duration::from_secs(60 * minutes),
        ..record()
    };
    let show = |what: &str, longest: &mut Duration| {
        println!("{what:<44} {:>12.1?}", std::mem::take(longest));
    };
    let tokens = new_tokens(2 * MANY);
    let mut fresh = tokens.iter().cloned();
    println!("\nmemory, the longest that a call held its thread, 1,000,000 sessions");
    let mut longest = Duration::ZERO;
    for (number, token) in fresh.by_ref().take(MANY).enumerate() {
        let lifetime = if number % 10 == 0 { 30 } else { 60 };
        let created = hold(&mut longest, store.create(token, &record(lifetime)));
        created.expect("it is new");
    }
    show("create while it grows", &mut longest);
    for token in fresh.by_ref().take(1_000) {
        let created = hold(&mut longest, store.create(token, &record(60)));
        created.expect_err("it is full");
    }
    show("create at capacity, nothing expired", &mut longest);
    clock.advance(Duration::from_secs(45 * 60));
    for token in fresh.by_ref().take(MANY / 10) {
        let created = hold(&mut longest, store.create(token, &record(60)));
        created.expect("a tenth has expired");
    }
    show("create at capacity, a tenth expired", &mut longest);
    clock.advance(Duration::from_secs(120 * 60));
    let swept = hold(&mut longest, store.sweep(usize::MAX));
    assert_eq!(swept.expect("memory does not fail"), MANY as u64);
    show("sweep of all", &mut longest);

    let subject = Subject::new("one").expect("three letters are a subject");
    let owned = Record {
        subject: Some(subject.clone()),
        ..record(60)
    };
    for token in tokens.iter().take(MANY).cloned() {
        let created = hold(&mut longest, store.create(token, &owned));
        created.expect("it is new");
    }
    show("create, all of one subject", &mut longest);
    let listed = hold(&mut longest, store.list(&subject, None, MANY));
    assert_eq!(listed.expect("memory does not fail").len(), MANY);
    show("list all of one subject", &mut longest);
    let ended = hold(&mut longest, store.revoke_all(&subject, None));
    assert_eq!(ended.expect("memory does not fail"), MANY as u64);
    show("revoke all of one subject", &mut longest);
}

/// Runs a call that waits for nothing but its turn.
fn hold<T>(longest: &mut Duration, call: impl Future<Output = T>) -> T {
    let mut call = pin!(call);
    loop {
        let start = Instant::now();
        let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        *longest = (*longest).max(start.elapsed());
        if let Poll::Ready(value) = polled {
            return value;
        }
    }
}

fn tower_record(id: u128) -> TowerRecord {
    let value = serde_json::to_value(visitor()).expect("it is a value");
    TowerRecord {
        id: Id(id as i128),
        data: HashMap::from([("visitor".to_owned(), value)]),
        expiry_date: time::OffsetDateTime::now_utc() + time::Duration::days(1),
    }
}

type Map = Arc<Mutex<HashMap<u128, Bytes>>>;

async fn filled() -> (
    Arc<Vec<Token>>,
    Arc<MemoryStore>,
    Map,
    tower_sessions::MemoryStore,
) {
    let (tokens, ours) = (Arc::new(new_tokens(SESSIONS)), Arc::new(MemoryStore::new()));
    let (map, tower) = (Map::default(), tower_sessions::MemoryStore::default());
    for (number, token) in tokens.iter().enumerate() {
        ours.create(token.clone(), &record())
            .await
            .expect("it is new");
        map.lock()
            .expect("no panic")
            .insert(number as u128, record().data);
        tower
            .save(&tower_record(number as u128))
            .await
            .expect("memory does not fail");
    }
    (tokens, ours, map, tower)
}

async fn load(tasks: usize, rounds: usize) {
    let (tokens, ours, map, tower) = filled().await;
    Comparison::new(format!("memory, load, {tasks} tasks"))
        .add("Mutex<HashMap>", move || {
            let map = Arc::clone(&map);
            time_tasks(tasks, COUNT, move |number| {
                let found = map
                    .lock()
                    .expect("no panic")
                    .get(&((number % SESSIONS) as u128))
                    .map(|data| data.to_vec());
                assert!(found.is_some());
                std::future::ready(())
            })
        })
        .add("sessionkit MemoryStore", move || {
            let (tokens, ours) = (Arc::clone(&tokens), Arc::clone(&ours));
            time_tasks(tasks, COUNT, move |number| {
                let (tokens, ours) = (Arc::clone(&tokens), Arc::clone(&ours));
                async move {
                    let found = ours.load(&tokens[number % SESSIONS]).await;
                    assert!(found.expect("memory does not fail").is_some());
                }
            })
        })
        .add("tower-sessions MemoryStore", move || {
            let tower = tower.clone();
            time_tasks(tasks, COUNT / 10, move |number| {
                let tower = tower.clone();
                async move {
                    let found = tower.load(&Id((number % SESSIONS) as i128)).await;
                    assert!(found.expect("memory does not fail").is_some());
                }
            })
        })
        .print(rounds)
        .await;
}

async fn update(tasks: usize, rounds: usize) {
    let (tokens, ours, map, tower) = filled().await;
    Comparison::new(format!("memory, update, {tasks} tasks"))
        .add("Mutex<HashMap>", move || {
            let (map, data) = (Arc::clone(&map), record().data);
            time_tasks(tasks, COUNT, move |number| {
                let data = Bytes::copy_from_slice(&data);
                map.lock()
                    .expect("no panic")
                    .insert((number % SESSIONS) as u128, data);
                std::future::ready(())
            })
        })
        .add("sessionkit MemoryStore", move || {
            let (tokens, ours) = (Arc::clone(&tokens), Arc::clone(&ours));
            time_tasks(tasks, COUNT, move |number| {
                let (tokens, ours) = (Arc::clone(&tokens), Arc::clone(&ours));
                async move {
                    let record = Record {
                        data: Bytes::copy_from_slice(&[7; 327]),
                        ..empty()
                    };
                    let token = &tokens[number % SESSIONS];
                    ours.update(token, record.revision, &record)
                        .await
                        .expect("it is there");
                }
            })
        })
        .add("tower-sessions MemoryStore", move || {
            let tower = tower.clone();
            time_tasks(tasks, COUNT / 10, move |number| {
                let tower = tower.clone();
                async move {
                    let record = tower_record((number % SESSIONS) as u128);
                    tower.save(&record).await.expect("memory does not fail");
                }
            })
        })
        .print(rounds)
        .await;
}

fn empty() -> Record {
    Record {
        data: Bytes::new(),
        revision: Revision::from_bits(7),
        created_at: Timestamp::MIN,
        expires_at: Timestamp::MAX,
        subject: None,
        label: Default::default(),
    }
}

async fn create(tasks: usize, rounds: usize) {
    let tokens = Arc::new(new_tokens(COUNT));
    Comparison::new(format!("memory, create, {tasks} tasks"))
        .add("Mutex<HashMap>", move || {
            let (map, data) = (Map::default(), record().data);
            time_tasks(tasks, COUNT, move |number| {
                let data = Bytes::copy_from_slice(&data);
                map.lock().expect("no panic").insert(number as u128, data);
                std::future::ready(())
            })
        })
        .add("sessionkit MemoryStore", move || {
            let (tokens, ours) = (Arc::clone(&tokens), Arc::new(MemoryStore::new()));
            time_tasks(tasks, COUNT, move |number| {
                let (tokens, ours) = (Arc::clone(&tokens), Arc::clone(&ours));
                async move {
                    let record = Record {
                        data: Bytes::copy_from_slice(&[7; 327]),
                        ..empty()
                    };
                    ours.create(tokens[number].clone(), &record)
                        .await
                        .expect("it is new");
                }
            })
        })
        .add("tower-sessions MemoryStore", move || {
            let tower = tower_sessions::MemoryStore::default();
            time_tasks(tasks, COUNT / 10, move |number| {
                let tower = tower.clone();
                async move {
                    let mut record = tower_record(number as u128);
                    tower
                        .create(&mut record)
                        .await
                        .expect("memory does not fail");
                }
            })
        })
        .print(rounds)
        .await;
}

async fn delete(tasks: usize, rounds: usize) {
    let tokens = Arc::new(new_tokens(COUNT));
    Comparison::new(format!("memory, delete, {tasks} tasks"))
        .add("Mutex<HashMap>", move || {
            let map = Map::default();
            async move {
                for number in 0..COUNT {
                    map.lock()
                        .expect("no panic")
                        .insert(number as u128, record().data);
                }
                time_tasks(tasks, COUNT, move |number| {
                    map.lock()
                        .expect("no panic")
                        .remove(&(number as u128))
                        .expect("it is there");
                    std::future::ready(())
                })
                .await
            }
        })
        .add("sessionkit MemoryStore", move || {
            let (tokens, ours) = (Arc::clone(&tokens), Arc::new(MemoryStore::new()));
            async move {
                let record = record();
                for token in tokens.iter() {
                    ours.create(token.clone(), &record)
                        .await
                        .expect("it is new");
                }
                time_tasks(tasks, COUNT, move |number| {
                    let (tokens, ours) = (Arc::clone(&tokens), Arc::clone(&ours));
                    async move {
                        let ended = ours.delete(&tokens[number], None).await;
                        ended.expect("memory does not fail");
                    }
                })
                .await
            }
        })
        .print(rounds)
        .await;
}
