//! What only the inside of the crate can be asked: every step of every operation, one at a time.

mod codec;
mod crash;
mod steps;

use std::{path::Path, sync::Arc, time::Duration};

use sessionkit::{Label, ManualClock, Record, Revision, StoreKey, Subject, Timestamp};

use crate::{
    FsOptions, Quota,
    call::Call,
    temp::is_temp,
    tree::{Seen, Tree},
};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

const A: StoreKey = StoreKey::from_bytes([0xaa; 32]);
/// In another directory than [`A`], in the same one, and in one of a lower number.
const B: StoreKey = StoreKey::from_bytes([0xbb; 32]);
const A2: StoreKey = {
    let mut bytes = [0xa2; 32];
    bytes[0] = 0xaa;
    StoreKey::from_bytes(bytes)
};
const LOW: StoreKey = StoreKey::from_bytes([0x01; 32]);

fn call() -> Call {
    Call::new(Duration::from_secs(5))
}

fn tree(path: &Path) -> Tree {
    Tree::open(path, &options().quota(Quota::Sessions(1000))).unwrap()
}

fn tree_without_quota(path: &Path) -> Tree {
    Tree::open(path, &options()).unwrap()
}

fn options() -> FsOptions {
    FsOptions::new().clock(Arc::new(ManualClock::new(NOW)))
}

/// A record that differs from those of other revisions in everything.
fn record(revision: u64, subject: Option<&str>) -> Record {
    Record {
        data: format!("data of revision {revision}").into(),
        revision: Revision::from_bits(revision),
        created_at: NOW,
        expires_at: NOW + Duration::from_secs(60 * (1 + revision)),
        subject: subject.map(|subject| Subject::new(subject).unwrap()),
        label: Label::new(&format!("label {revision}")).unwrap(),
    }
}

/// As [`FsStore`](crate::FsStore) loads.
fn load(tree: &Tree, key: &StoreKey) -> sessionkit::Result<Option<Record>> {
    match tree.load(key)? {
        None => Ok(None),
        Some(Seen::Live(record)) => Ok(Some(record)),
        Some(Seen::Expired) => Ok(tree.load_locked(&call(), key)?),
    }
}

fn keys_of(tree: &Tree, subject: &str) -> Vec<StoreKey> {
    list(tree, subject).unwrap()
}

/// As [`FsStore`](crate::FsStore) lists.
fn list(tree: &Tree, subject: &str) -> sessionkit::Result<Vec<StoreKey>> {
    let subject = Subject::new(subject)?;
    let mut keys = Vec::new();
    for (key, seen) in tree.list(&call(), &subject, None, 100)? {
        let is_live = match seen {
            Seen::Live(_) => true,
            Seen::Expired => tree.list_locked(&call(), &subject, &key)?.is_some(),
        };
        keys.extend(is_live.then_some(key));
    }
    Ok(keys)
}

/// As [`FsStore`](crate::FsStore) ends all sessions of a subject.
fn revoke_all(tree: &Tree, call: &Call, subject: &str) -> sessionkit::Result<u64> {
    let subject = Subject::new(subject)?;
    let mut revoked = 0;
    for key in tree.keys_of(call, &subject)? {
        revoked += u64::from(tree.revoke(call, &subject, &key)?);
    }
    Ok(revoked)
}

/// As [`FsStore`](crate::FsStore) creates.
fn create(tree: &Tree, call: &Call, key: &StoreKey, record: &Record) -> sessionkit::Result<()> {
    if tree.creates_unlocked(record) && tree.create_unlocked(call, key, record)? {
        return Ok(());
    }
    tree.create(call, key, record)
}

/// The names of all files below a directory, relative to it.
fn files(path: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            let below = self::files(&entry.path());
            files.extend(below.into_iter().map(|file| format!("{name}/{file}")));
        } else {
            files.push(name);
        }
    }
    files.sort();
    files
}

fn temporaries(path: &Path) -> usize {
    files(path)
        .iter()
        .filter(|file| is_temp(file.rsplit('/').next().unwrap()))
        .count()
}

/// Sessions and entries of the index, by the files that are there.
fn sessions_and_entries(path: &Path) -> (usize, usize) {
    let files = files(path);
    let entries = files.iter().filter(|file| file.starts_with("subjects/"));
    let entries = entries.count();
    let others = files.iter().filter(|file| *file == "usage").count() + temporaries(path);
    (files.len() - entries - others, entries)
}

/// An operation, what is there before it, and what it leaves.
struct Scenario {
    name: &'static str,
    open: fn(&Path) -> Tree,
    before: &'static [(StoreKey, u64, Option<&'static str>)],
    run: fn(&Tree, &Call) -> sessionkit::Result<()>,
    after: &'static [(StoreKey, u64, Option<&'static str>)],
}

const SUBJECTS: [&str; 2] = ["alice", "bob"];

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "create",
        open: tree,
        before: &[],
        run: |tree, call| create(tree, call, &A, &record(1, Some("alice"))),
        after: &[(A, 1, Some("alice"))],
    },
    Scenario {
        name: "create beside another",
        open: tree,
        before: &[(A2, 1, Some("alice"))],
        run: |tree, call| create(tree, call, &A, &record(2, Some("alice"))),
        after: &[(A2, 1, Some("alice")), (A, 2, Some("alice"))],
    },
    Scenario {
        name: "create without a lock",
        open: tree_without_quota,
        before: &[(A2, 1, Some("alice"))],
        run: |tree, call| create(tree, call, &A, &record(2, None)),
        after: &[(A2, 1, Some("alice")), (A, 2, None)],
    },
    Scenario {
        name: "create without a quota",
        open: tree_without_quota,
        before: &[(A2, 1, Some("alice"))],
        run: |tree, call| create(tree, call, &A, &record(2, Some("alice"))),
        after: &[(A2, 1, Some("alice")), (A, 2, Some("alice"))],
    },
    Scenario {
        name: "update",
        open: tree,
        before: &[(A, 1, Some("alice"))],
        run: |tree, call| {
            let expected = Revision::from_bits(1);
            tree.update(call, &A, expected, &record(2, Some("alice")))
        },
        after: &[(A, 2, Some("alice"))],
    },
    Scenario {
        name: "update that changes the subject",
        open: tree,
        before: &[(A, 1, Some("alice"))],
        run: |tree, call| {
            let expected = Revision::from_bits(1);
            tree.update(call, &A, expected, &record(2, Some("bob")))
        },
        after: &[(A, 2, Some("bob"))],
    },
    Scenario {
        name: "update that removes the subject",
        open: tree,
        before: &[(A, 1, Some("alice"))],
        run: |tree, call| tree.update(call, &A, Revision::from_bits(1), &record(2, None)),
        after: &[(A, 2, None)],
    },
    Scenario {
        name: "update without a quota",
        open: tree_without_quota,
        before: &[(A, 1, None)],
        run: |tree, call| tree.update(call, &A, Revision::from_bits(1), &record(2, None)),
        after: &[(A, 2, None)],
    },
    Scenario {
        name: "update at login, beside another",
        open: tree,
        before: &[(A, 1, None), (B, 7, Some("alice"))],
        run: |tree, call| {
            let expected = Revision::from_bits(1);
            tree.update(call, &A, expected, &record(2, Some("alice")))
        },
        after: &[(A, 2, Some("alice")), (B, 7, Some("alice"))],
    },
    Scenario {
        name: "delete",
        open: tree,
        before: &[(A, 1, Some("alice")), (B, 7, Some("alice"))],
        run: |tree, call| tree.delete(call, &A, None).map(drop),
        after: &[(B, 7, Some("alice"))],
    },
    Scenario {
        name: "delete of a revision",
        open: tree_without_quota,
        before: &[(A, 1, Some("alice"))],
        run: |tree, call| {
            let expected = Some(Revision::from_bits(1));
            tree.delete(call, &A, expected).map(drop)
        },
        after: &[],
    },
    Scenario {
        name: "revoke",
        open: tree,
        before: &[(A, 1, Some("alice")), (B, 7, Some("alice"))],
        run: |tree, call| {
            let alice = Subject::new("alice")?;
            tree.revoke(call, &alice, &A).map(drop)
        },
        after: &[(B, 7, Some("alice"))],
    },
    Scenario {
        name: "revoke all",
        open: tree,
        before: &[(A, 1, Some("alice")), (B, 7, Some("bob"))],
        run: |tree, call| revoke_all(tree, call, "alice").map(drop),
        after: &[(B, 7, Some("bob"))],
    },
];

impl Scenario {
    fn prepare(&self, path: &Path) -> Tree {
        let tree = (self.open)(path);
        for (key, revision, subject) in self.before {
            create(&tree, &call(), key, &record(*revision, *subject)).unwrap();
        }
        tree
    }

    /// Whether the directory holds exactly what was there before, or what is there after; panics
    /// when it holds anything else.
    fn is_done(&self, tree: &Tree) -> bool {
        let found: Vec<_> = [A, A2, B, LOW]
            .into_iter()
            .filter_map(|key| Some((key, load(tree, &key).unwrap()?)))
            .collect();
        let listed: Vec<_> = SUBJECTS.iter().map(|of| keys_of(tree, of)).collect();
        let [is_before, is_after] = [self.before, self.after].map(|state| {
            let mut records: Vec<_> = state
                .iter()
                .map(|(key, revision, subject)| (*key, record(*revision, *subject)))
                .collect();
            records.sort_by_key(|(key, _)| [A, A2, B, LOW].iter().position(|k| k == key));
            let keys: Vec<Vec<_>> = SUBJECTS
                .iter()
                .map(|of| {
                    let belongs = |(_, _, subject): &&(_, _, Option<&str>)| *subject == Some(of);
                    let mut keys: Vec<_> = state.iter().filter(belongs).map(|s| s.0).collect();
                    keys.sort();
                    keys
                })
                .collect();
            records == found && keys == listed
        });
        assert!(
            is_before != is_after,
            "{}: neither before nor after: {found:?}, {listed:?}",
            self.name
        );
        is_after
    }

    /// Checks that a sweep leaves the files of the live sessions and no other, that the store goes
    /// on working, and that nothing at all is left when the sessions have ended.
    fn check_recovery(&self, path: &Path, tree: &Tree) {
        let is_done = self.is_done(tree);
        assert_eq!(tree.sweep(&call(), 100).unwrap(), 0, "{}", self.name);
        assert_eq!(self.is_done(tree), is_done, "{}", self.name);
        let live = if is_done { self.after } else { self.before };
        assert_eq!(sessions_and_entries(path).0, live.len(), "{}", self.name);
        assert_eq!(temporaries(path), 0, "{}", self.name);
        if let Some(usage) = &tree.usage {
            let counted = usage.total().unwrap().sessions;
            assert_eq!(counted, live.len() as i64, "{}", self.name);
        }
        if !is_done {
            (self.run)(tree, &call()).unwrap();
            assert!(self.is_done(tree), "{}", self.name);
        }
        for key in [A, A2, B, LOW] {
            tree.delete(&call(), &key, None).unwrap();
        }
        assert_eq!(tree.sweep(&call(), 100).unwrap(), 0, "{}", self.name);
        let left = files(path);
        assert!(left.iter().all(|file| file == "usage"), "{left:?}");
    }
}
