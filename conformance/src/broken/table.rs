/// A bug, and what the kit has to make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bug {
    /// The name in the URL `broken:NAME`.
    pub name: &'static str,
    /// The ids of cases that must catch it; others may.
    pub cases: &'static [&'static str],
    /// Words of the report of the first of them.
    pub words: &'static str,
    /// Whether the store is a client-side one.
    pub client: bool,
}

impl Bug {
    /// Whether it is that one call takes two steps, between which others may come.
    #[must_use]
    pub fn is_split(&self) -> bool {
        self.words == SPLIT
    }
}

/// What the cases about two actors report.
const SPLIT: &str = "an order of ";

const fn server(name: &'static str, cases: &'static [&'static str], words: &'static str) -> Bug {
    Bug {
        name,
        cases,
        words,
        client: false,
    }
}

const fn client(name: &'static str, cases: &'static [&'static str], words: &'static str) -> Bug {
    Bug {
        name,
        cases,
        words,
        client: true,
    }
}

/// A call that takes two steps where it should take one.
const fn split(name: &'static str, cases: &'static [&'static str]) -> Bug {
    server(name, cases, SPLIT)
}

/// Every bug.
pub const BUGS: &[Bug] = &[
    server("drops-the-label", &["L01"], "another label"),
    server("drops-the-creation", &["L01"], "another created_at"),
    server(
        "create-returns-another-token",
        &["L01"],
        "returns the token it was given",
    ),
    server("load-stores-a-blank", &["L02"], "stored entries"),
    server("update-merges", &["L03", "R09"], "another subject"),
    server("update-keeps-the-revision", &["L03"], "another revision"),
    server("update-keeps-the-creation", &["L03"], "another created_at"),
    server("delete-does-nothing", &["L04"], "load after delete is None"),
    server("delete-of-nothing-fails", &["L04"], "delete again succeeds"),
    server(
        "update-inserts",
        &["L05"],
        "update of an unknown token is Missing",
    ),
    server(
        "missing-is-ok",
        &["L05"],
        "update of an unknown token is Missing",
    ),
    server(
        "create-overwrites",
        &["L06"],
        "create over a live record is Exists",
    ),
    server("empty-is-absent", &["L08"], "load of an empty record"),
    server(
        "delete-stores-an-empty-record",
        &["L08"],
        "load after delete is None",
    ),
    server(
        "open-empties",
        &["L10"],
        "after the namespace was opened again",
    ),
    server(
        "delete-is-always-true",
        &["L11", "F09"],
        "whether a second delete ended a record is false",
    ),
    server(
        "delete-ignores-the-revision",
        &["L12", "C09", "C16"],
        "delete at another revision is Conflict",
    ),
    server("ping-is-unsupported", &["L13"], "ping succeeds"),
    server(
        "caches-for-ever",
        &["C11", "L09", "L04"],
        "after delete, which loads ran beside",
    ),
    server("data-are-text", &["F02", "F01"], "all 256 bytes"),
    server("data-end-at-nul", &["F02"], "all 256 bytes"),
    server("labels-are-ascii", &["F03"], "a composed letter"),
    server("labels-are-trimmed", &["F03"], "trailing spaces"),
    server("data-are-cut-at-64k", &["F04"], "65536 bytes"),
    server(
        "too-large-is-cut",
        &["F04"],
        "with a byte more than max_data is TooLarge",
    ),
    server("labels-are-quoted", &["F05"], "SQL"),
    server(
        "corrupt-panics",
        &["F07"],
        "a panic: the disk is never wrong",
    ),
    server(
        "corrupt-is-none",
        &["F07"],
        "load of an empty value is Corrupt",
    ),
    server(
        "corrupt-is-unavailable",
        &["F07"],
        "load of an empty value is Corrupt",
    ),
    server(
        "delete-reads-first",
        &["F07"],
        "delete of an empty value succeeds",
    ),
    server(
        "newer-format-is-none",
        &["F08"],
        "load of a newer format is Corrupt",
    ),
    server("conflict-writes-anyway", &["F09", "C02"], "update("),
    server("tokens-ignore-case", &["K01"], "token in capitals is None"),
    server("tokens-are-trimmed", &["K02"], "with a space behind"),
    server("tokens-are-prefixes", &["K03", "K10"], "that is longer"),
    server("tokens-are-paths", &["K04"], "of a path"),
    server("tokens-are-short", &["K05"], "the length of a token is 32"),
    server("tokens-repeat", &["K05"], "the number of different tokens"),
    server(
        "tokens-without-entropy",
        &["K06"],
        "a token without randomness is Unavailable",
    ),
    server(
        "keys-collide",
        &["K07"],
        "create of a random token succeeds",
    ),
    server("files-under-the-whole-token", &["K09"], "by another secret"),
    server("tokens-are-cut", &["K08"], "of 255 bytes"),
    server(
        "expiry-is-not-checked",
        &["T01"],
        "after the expiry is None",
    ),
    server("load-extends", &["T01"], "after the expiry is None"),
    server(
        "expires-a-second-early",
        &["T02"],
        "shortly before the expiry",
    ),
    server("expiry-in-seconds", &["T02"], "shortly before the expiry"),
    server(
        "past-expiry-is-forever",
        &["T03"],
        "load after that is None",
    ),
    server("update-drops-the-expiry", &["T04"], "another expires_at"),
    server("update-keeps-the-expiry", &["T05"], "another expires_at"),
    server("touch-only-extends", &["T05"], "another expires_at"),
    server("touch-changes-the-revision", &["T05"], "another revision"),
    server(
        "touch-revives",
        &["T06"],
        "touch of an expired record is Missing",
    ),
    server("touch-uses-a-default", &["T06"], "another expires_at"),
    server("sessions-have-no-end", &["T07"], "at visit 100 of 100"),
    server("short-expiry-is-forever", &["T08"], "250 ms later is None"),
    server("expiry-in-32-bits", &["T09"], "until 2038"),
    server("zone-shifts-expiry", &["T11"], "in another time zone"),
    server(
        "sweep-has-its-own-clock",
        &["T12"],
        "the number of swept records is",
    ),
    server(
        "update-revives",
        &["T13"],
        "update of an expired record is Missing",
    ),
    server(
        "expired-still-exists",
        &["T13"],
        "create over an expired record succeeds",
    ),
    server("create-inherits", &["T13"], "another data"),
    server(
        "create-checks-then-inserts",
        &["C01"],
        "1 of 32 creates of one token succeeds",
    ),
    server(
        "revisions-are-not-compared",
        &["C02", "C09", "R03", "R04"],
        "1 of 8 updates of one revision succeeds",
    ),
    server(
        "update-checks-then-writes",
        &["C05", "C03", "C02", "R05", "R07", "R10"],
        "load after update and delete is None",
    ),
    server(
        "revision-is-one-bit",
        &["C03", "C09"],
        "200 increments give",
    ),
    server(
        "loads-are-torn",
        &["C04"],
        "the letter that the revision names",
    ),
    server(
        "sweep-checks-then-deletes",
        &["C10"],
        "created over an expired one",
    ),
    server(
        "reads-lag-behind",
        &["C12", "L09"],
        "an order of the calls that explains their answers",
    ),
    split("create-in-two-steps", &["C40"]),
    split("create-in-three-steps", &["C40"]),
    split("create-in-two-locks", &["C40"]),
    split("create-in-two-tasks", &["C40"]),
    split(
        "update-in-two-steps",
        &["C41", "C42", "C46", "R05", "R06", "R07", "R08", "R10"],
    ),
    split(
        "update-in-three-steps",
        &["C41", "C42", "C46", "R05", "R06", "R07", "R08", "R10"],
    ),
    split("update-in-two-locks", &["C41"]),
    split("update-in-two-tasks", &["C41"]),
    split("touch-in-two-steps", &["C45", "C44", "C49", "C50", "C54"]),
    split("touch-in-three-steps", &["C45", "C44", "C49", "C50", "C54"]),
    split("touch-in-two-locks", &["C45"]),
    split("touch-in-two-tasks", &["C45"]),
    split("delete-in-two-steps", &["C43", "C42"]),
    split("delete-in-three-steps", &["C43", "C42"]),
    split("delete-in-two-locks", &["C43"]),
    split("delete-in-two-tasks", &["C43"]),
    split("revoke-in-two-steps", &["C48", "C51"]),
    split("revoke-in-three-steps", &["C48", "C51"]),
    split("revoke-in-two-locks", &["C48"]),
    split("revoke-in-two-tasks", &["C48"]),
    split("revoke-all-in-two-steps", &["C51"]),
    split("revoke-all-in-three-steps", &["C51"]),
    split("revoke-all-in-two-locks", &["C51"]),
    split("revoke-all-in-two-tasks", &["C51"]),
    split("revoke-all-compares-in-two-steps", &["C50", "C52"]),
    split("revoke-all-compares-in-three-steps", &["C50", "C52"]),
    split("revoke-all-compares-in-two-locks", &["C50"]),
    split("revoke-all-compares-in-two-tasks", &["C50"]),
    split("sweep-in-two-steps", &["C53", "C55"]),
    split("sweep-in-three-steps", &["C53", "C55"]),
    split("sweep-in-two-locks", &["C53"]),
    split("sweep-in-two-tasks", &["C53"]),
    split("list-in-two-steps", &["C57"]),
    split("list-in-three-steps", &["C57"]),
    split("opening-in-two-steps", &["C47"]),
    split("opening-in-three-steps", &["C47"]),
    split("a-closed-handle-writes-back", &["C47"]),
    split("update-on-a-thread", &["C41", "C42"]),
    server("locks-its-pool-twice", &["C13"], "still running: 64 update"),
    server(
        "touch-checks-then-writes",
        &["C14"],
        "after touch and delete is None",
    ),
    server(
        "delete-checks-then-removes",
        &["C15", "C16"],
        "1 of 32 deletes of one record succeeds",
    ),
    server(
        "update-removes-first",
        &["X01", "R11", "C56"],
        "the state before or after it",
    ),
    server(
        "answers-get-mixed-up",
        &["X02"],
        "after a Load of another token was dropped",
    ),
    server("index-is-written-later", &["X03"], "in the list"),
    server(
        "drops-leak-tasks",
        &["X04"],
        "no tasks left of 1000 dropped calls",
    ),
    server("stays-busy-after-a-drop", &["X05"], "succeeds"),
    server(
        "namespaces-are-one",
        &["I01"],
        "of a token of the other is None",
    ),
    server(
        "sweep-reaches-the-neighbours",
        &["I01"],
        "the records that were swept in the other are",
    ),
    server(
        "namespaces-without-separator",
        &["I02"],
        "the namespace beside",
    ),
    server("namespace-as-pattern", &["I02"], "the namespace beside"),
    server("sweep-removes-strangers", &["I03"], "what lives beside is"),
    server(
        "namespaces-are-cut",
        &["I60"],
        "of a token of the other is None",
    ),
    server("too-large-clears", &["B01"], "load after that"),
    server(
        "trusts-lengths",
        &["B02"],
        "load of ones from byte 9 on is Corrupt",
    ),
    server("bad-namespace-is-unavailable", &["B03"], "is InvalidConfig"),
    server("bad-namespace-panics", &["B03"], "no such table"),
    server(
        "sweep-ignores-the-limit",
        &["B04"],
        "sweep of 0 records removes",
    ),
    server(
        "load-hides-errors",
        &["E01"],
        "load from a backend that is down is Unavailable",
    ),
    server(
        "delete-hides-errors",
        &["E01"],
        "delete at its revision on a backend that is down",
    ),
    server("open-waits-for-ever", &["E02"], "open ends within"),
    server("writes-are-lost-in-a-crash", &["E03"], "load after a crash"),
    server(
        "hangs-with-the-server",
        &["E04"],
        "every one of 37 calls at once ends within",
    ),
    server(
        "lost-reply-is-unavailable",
        &["E05"],
        "that is reported to have changed nothing",
    ),
    server(
        "repeats-lost-calls",
        &["E05"],
        "update whose answer is lost",
    ),
    server(
        "repeats-lost-deletes",
        &["E05"],
        "delete at its revision whose answer is lost",
    ),
    server("short-reads", &["E06"], "slowly"),
    server(
        "closed-connection-fails",
        &["E07"],
        "after the server closed idle connections",
    ),
    server("full-evicts", &["E08"], "in a full backend"),
    server("read-only-is-down", &["E09"], "from a read-only backend"),
    server(
        "busy-is-conflict",
        &["E10"],
        "where somebody else holds the locks",
    ),
    server(
        "ping-is-always-ok",
        &["E12"],
        "ping of a backend with the fault Down is Unavailable",
    ),
    server("sweep-hangs", &["E13"], "sweep ends within"),
    server("index-hangs", &["E14"], "list ends within"),
    server(
        "files-under-the-token",
        &["S01", "N01"],
        "the token in a name",
    ),
    server("data-are-readable-at-rest", &["S02"], "the data in clear"),
    server(
        "debug-shows-data",
        &["S04"],
        "errors and Debug without secrets",
    ),
    server(
        "errors-name-the-token",
        &["S04"],
        "errors and Debug without secrets",
    ),
    server("logs-the-token", &["S04"], "log lines without secrets"),
    server(
        "subjects-are-patterns",
        &["S05"],
        "the sessions of the subject",
    ),
    server(
        "keys-are-never-removed",
        &["S07"],
        "a cookie under the newest key",
    ),
    server(
        "too-large-quotes-the-data",
        &["S40"],
        "errors and Debug without secrets where data are too large",
    ),
    server(
        "corrupt-quotes-what-is-stored",
        &["S40"],
        "errors and Debug without secrets where a record cannot be read",
    ),
    server(
        "logs-what-it-revokes",
        &["S41"],
        "log lines without secrets where sessions are listed and revoked",
    ),
    server(
        "sweep-logs-what-it-removes",
        &["S41"],
        "log lines without secrets where expired records are swept",
    ),
    server(
        "index-debug-shows-keys",
        &["S41"],
        "errors and Debug without secrets where sessions are listed",
    ),
    server(
        "lost-answers-name-the-key",
        &["S42"],
        "errors and Debug without secrets under the fault LoseReplies",
    ),
    server(
        "late-answers-name-the-key",
        &["S42"],
        "errors and Debug without secrets under the fault Hang",
    ),
    server(
        "sweep-is-early",
        &["W01", "T12"],
        "the number of swept records is",
    ),
    server(
        "sweep-miscounts",
        &["W01"],
        "the number of swept records is",
    ),
    server(
        "sweep-removes-nothing",
        &["W01", "B04", "W02", "W07", "T12"],
        "0, and 100 entries of the others are left",
    ),
    server(
        "sweep-counts-half",
        &["B04"],
        "entries of the others are left",
    ),
    server(
        "sweep-empties",
        &["W01"],
        "load of a live record after a sweep",
    ),
    server(
        "sweep-counts-what-it-saw",
        &["W02"],
        "four sweeps together remove",
    ),
    server(
        "sweep-stops-at-rot",
        &["W04"],
        "sweep beside an unreadable record succeeds",
    ),
    server(
        "claims-a-native-sweep",
        &["W05", "M02"],
        "a sweep that the backend does by itself removes 0",
    ),
    server("claims-no-sweep", &["W06", "M02"], "sweep is Unsupported"),
    server(
        "try-sweep-leaves-it-to-others",
        &["W07"],
        "try_sweep that nobody stands in the way of",
    ),
    server(
        "try-sweep-hides-errors",
        &["W40"],
        "try_sweep on a backend with the fault Down",
    ),
    server(
        "sweep-hides-lost-answers",
        &["W40"],
        "sweep on a backend with the fault LoseReplies",
    ),
    server(
        "sweep-leaves-those-with-a-subject",
        &["W41"],
        "sweeps of at most 7 records remove",
    ),
    server(
        "sweep-looks-no-further-than-its-limit",
        &["W41"],
        "sweeps of at most 7 records remove",
    ),
    server(
        "sweep-goes-by-the-first-expiry",
        &["W41"],
        "sweeps of at most 7 records remove",
    ),
    server(
        "sweep-goes-by-the-latest-expiry",
        &["W41"],
        "sweeps of at most 7 records remove",
    ),
    server(
        "sweep-counts-entries-too",
        &["W41"],
        "a sweep of at most 7 records",
    ),
    server(
        "sweep-leaves-the-entries",
        &["W41"],
        "stored entries when everything has ended",
    ),
    server("list-shows-expired", &["N01", "N03"], "the list is"),
    server("list-drops-the-label", &["N01"], "the label is"),
    server(
        "list-ignores-the-limit",
        &["N01"],
        "the first two of the list",
    ),
    server("list-ignores-the-position", &["N02"], "a list that ends"),
    server("list-counts-from-the-start", &["N02"], "a list that ends"),
    server("list-is-unordered", &["N02"], ""),
    server(
        "index-keeps-the-old",
        &["N03"],
        "after the subject changed, for the old one",
    ),
    server(
        "revoke-ignores-the-subject",
        &["N04"],
        "somebody else's session was revoked",
    ),
    server(
        "revoke-is-always-true",
        &["N04"],
        "an unknown session was revoked",
    ),
    server(
        "revoke-all-spares-nobody",
        &["N04"],
        "the sessions that were revoked are",
    ),
    server(
        "revoke-all-stops-early",
        &["N04"],
        "the sessions that were revoked are",
    ),
    server(
        "subjects-ignore-case",
        &["N04"],
        "the sessions that were revoked",
    ),
    server("subjects-are-prefixes", &["N04"], ""),
    server(
        "subjects-are-trimmed",
        &["N04"],
        "the sessions that were revoked are",
    ),
    server(
        "revoke-all-looks-once",
        &["N05", "R08"],
        "which renewals ran beside",
    ),
    server(
        "renew-does-nothing",
        &["R01", "R02"],
        "by the cookie from before the renewal, no session",
    ),
    server(
        "a-stale-delete-is-false",
        &["R06", "L12"],
        "after a sign-out beside renewals, no session",
    ),
    server("keeps-no-subject", &["N06"], "another subject"),
    server(
        "revoke-all-never-ends",
        &["N07"],
        "revoke_all beside sign-ins ends within",
    ),
    server(
        "repeats-a-lost-create",
        &["E60"],
        "create whose answer alone is lost is Ok or one of",
    ),
    server(
        "repeats-a-lost-update",
        &["E60"],
        "update whose answer alone is lost is Ok or one of",
    ),
    server(
        "repeats-a-lost-delete",
        &["E60"],
        "delete at its revision whose answer alone is lost is Ok or one of",
    ),
    server(
        "a-lost-load-is-none",
        &["E60"],
        "load whose answer alone is lost is a record",
    ),
    server(
        "repeats-a-lost-revoke",
        &["E61"],
        "the answer of a revoke whose answer alone is lost is true",
    ),
    server(
        "repeats-a-lost-revoke-all",
        &["E61"],
        "the answer of a revoke_all whose answer alone is lost is 2",
    ),
    server(
        "a-full-touch-is-ok",
        &["E62"],
        "touch in a full backend, which is Ok, leaves",
    ),
    server(
        "a-full-backend-loses-what-is-renewed",
        &["E62"],
        "renew in a full backend, which is Full, leaves",
    ),
    server(
        "a-full-delete-at-a-revision-is-ok",
        &["E62"],
        "delete at its revision in a full backend, which is Ok, leaves None",
    ),
    server(
        "a-full-sweep-removes-nothing",
        &["E62"],
        "at most 3 records swept in a full backend and after it",
    ),
    server(
        "a-full-revoke-is-ok",
        &["E63"],
        "load after revoke in a full backend is None",
    ),
    server(
        "a-full-revoke-all-is-ok",
        &["E63"],
        "load after revoke_all in a full backend is None",
    ),
    server("touch-drops-the-label", &["F40"], "another label"),
    server("renew-keeps-the-label", &["F40"], "load after renew"),
    server(
        "update-compares-half-a-revision",
        &["F41"],
        "update at a revision that differs in bit 32 is Conflict",
    ),
    server(
        "update-compares-revisions-as-floats",
        &["F41"],
        "update at a revision that differs in bit 0 is Conflict",
    ),
    server(
        "load-marks-what-is-damaged",
        &["F42"],
        "after loads of a live, a damaged and an absent record, the entries",
    ),
    server(
        "load-empties-what-has-expired",
        &["F42"],
        "after loads of an expired record, the entries",
    ),
    server(
        "keys-are-compared-in-three-bytes",
        &["K40"],
        "of the token whose key begins alike is None",
    ),
    server(
        "revoke-compares-three-bytes",
        &["K40"],
        "of a session whose key begins alike, after revoke of the other",
    ),
    server(
        "expiries-are-text",
        &["T40"],
        "created in and until 2286-11-20",
    ),
    server("creation-in-13-digits", &["T40"], "another created_at"),
    server(
        "the-list-ends-in-2286",
        &["T40"],
        "creations and expiries in the list are",
    ),
    server(
        "time-never-goes-back",
        &["T41"],
        "a sweep after the clock was set back by an hour removes 0",
    ),
    server(
        "swept-records-come-back",
        &["T41"],
        "of a swept record after the clock was set back by an hour is None",
    ),
    server(
        "keeps-what-another-handle-wrote",
        &["L40"],
        "nothing in the backend of a record that was deleted",
    ),
    server(
        "a-dropped-touch-keeps-its-lock",
        &["X40"],
        "after a Touch of its token was dropped at poll",
    ),
    server(
        "a-dropped-delete-keeps-its-lock",
        &["X40"],
        "after a Delete of its token was dropped at poll",
    ),
    server(
        "a-dropped-revoke-keeps-its-lock",
        &["X40"],
        "after a Revoke of its token was dropped at poll",
    ),
    server(
        "list-answers-from-memory",
        &["N40"],
        "list on a backend with the fault Down",
    ),
    server(
        "revoke-hides-lost-answers",
        &["N40"],
        "revoke on a backend with the fault LoseReplies",
    ),
    server(
        "revokes-on-a-replica",
        &["N40"],
        "revoke on a backend with the fault ReadOnly",
    ),
    server(
        "subjects-are-normalized",
        &["N41"],
        "the sessions of the subject",
    ),
    server("subjects-are-cut", &["N41"], "the sessions of the subject"),
    server(
        "subjects-end-at-nul",
        &["N41"],
        "the sessions of the subject",
    ),
    server("list-cuts-the-label", &["N41"], "the label in the list of"),
    server("list-trims-the-label", &["N41"], "the label in the list of"),
    server(
        "list-looks-its-position-up",
        &["N42"],
        "behind a session that was deleted, the list is",
    ),
    server(
        "list-asks-for-one-more",
        &["N42"],
        "the list of at most 18446744073709551615 sessions is",
    ),
    server(
        "list-shows-a-hundred",
        &["N43"],
        "behind 100 sessions, a page of 100 has",
    ),
    server(
        "revoke-all-ends-a-hundred",
        &["N43"],
        "of 257 sessions but one, revoke_all ends",
    ),
    server(
        "revoke-ends-what-is-nobodys",
        &["N44"],
        "whether revoke ended nobody's is",
    ),
    server(
        "revoke-says-true-of-the-expired",
        &["N44"],
        "whether revoke ended an expired session is",
    ),
    server(
        "revoke-all-needs-its-exception",
        &["N44"],
        "with the exception of somebody else's, revoke_all ends",
    ),
    server(
        "revoke-all-spares-the-first-secret",
        &["N44"],
        "with the exception of a renewed session, revoke_all ends",
    ),
    server(
        "revoke-all-follows-the-old",
        &["N45"],
        "that has changed hands, for its owner, the list is",
    ),
    server(
        "index-lists-twice",
        &["N45"],
        "that has changed hands back, for its owner, the list is",
    ),
    server(
        "create-keeps-the-old-entry",
        &["N45"],
        "under a key whose session has expired, for the former subject",
    ),
    server(
        "list-only-extends",
        &["N45"],
        "after touch, the expiry in the list is",
    ),
    server(
        "list-stops-at-rot",
        &["N46"],
        "list beside an unreadable record succeeds",
    ),
    server(
        "revoke-all-stops-at-rot",
        &["N46"],
        "revoke_all beside an unreadable record succeeds",
    ),
    server("the-canary-is-alive", &["M01"], "the canary is alive"),
    server("handles-differ", &["M02"], "a second handle declares"),
    server("destroy-leaves-records", &["M03"], ""),
    client(
        "cookie-is-cut",
        &["B01", "F04"],
        "with a byte more than max_data is TooLarge",
    ),
    client(
        "update-returns-the-old-cookie",
        &["L03"],
        "load after update",
    ),
    client("a-tail-is-ignored", &["Y01"], "of a longer token"),
    client(
        "plain-is-accepted",
        &["Y02"],
        "that were never sealed is None",
    ),
    client("seal-forgets-the-cookie", &["Y03"], "in the cookie id"),
    client(
        "sealed-for-everybody",
        &["Y03", "Y02"],
        "in another namespace",
    ),
    client(
        "sealed-expiry-is-ignored",
        &["Y04", "T01"],
        "which the client ignores",
    ),
    client(
        "touch-revives-a-cookie",
        &["Y04"],
        "touch of an expired token is Missing",
    ),
    client("keys-are-copied", &["Y05"], "under a removed key is None"),
    client(
        "cookies-are-chunked",
        &["Y06"],
        "is TooLarge and sends no cookie",
    ),
    client("sealed-is-only-signed", &["Y07"], "nothing in common"),
    client("nonces-repeat", &["Y07"], "one nonce for both"),
    client(
        "delete-of-a-cookie-is-ok",
        &["Y08"],
        "load after delete is None",
    ),
    client(
        "bad-cookies-differ",
        &["Y09", "Y01"],
        "a token with a wrong seal",
    ),
    server(
        "rot-is-thrown-away",
        &["L50"],
        "load after update over an unreadable value is Corrupt",
    ),
    server(
        "touch-leaves-a-marker",
        &["L51"],
        "no new entry after calls without a record",
    ),
    server(
        "late-records-collide",
        &["L52"],
        "create of an expired record over a deleted record succeeds",
    ),
    server(
        "delete-leaves-what-has-expired",
        &["L53"],
        "the entries of it are 0",
    ),
    server(
        "update-returns-another-secret",
        &["K50"],
        "update returns the token it was given",
    ),
    server("lists-get-mixed-up", &["X60"], "the sessions of"),
    server(
        "revoke-reaches-the-neighbours",
        &["I50"],
        "a session of another namespace was revoked",
    ),
    server("renew-waits-for-ever", &["E40"], "renew ends within"),
    server(
        "drop-loses-what-it-wrote",
        &["E41"],
        "after the handles were dropped",
    ),
    server(
        "declares-less-when-down",
        &["E42"],
        "under the fault Down, a handle declares",
    ),
    server("zone-shifts-touch", &["T60"], "another expires_at"),
    server("open-hangs", &["E43"], "open ends within"),
    client(
        "delete-of-a-cookie-at-a-revision-is-ok",
        &["Y60"],
        "delete of a live token is Unsupported",
    ),
    client(
        "every-token-is-its-own",
        &["Y61"],
        "whether the store has made a token of another namespace is false",
    ),
    client(
        "disowns-what-has-expired",
        &["Y61"],
        "whether the store has made an expired token is true",
    ),
];
