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
];
