//! What the index by subject says of itself.

use super::{
    super::{
        Method::{
            self, Create, Delete, DeleteAt, List, Renew, Revoke, RevokeAll, Sweep, Touch, TrySweep,
            Update,
        },
        Sentence,
        State::{
            Absent, Deleted, Down, Expired, Full, Hanging, Live, LostAnswer, OtherNamespace,
            SecondHandle, Unreadable,
        },
    },
    APART, FAILS, FAULTS, GONE, NO_SESSION, NOT_READABLE, RECORD, WHOEVER_ASKS, WORKS, none, read,
};

const INDEX: &[Method] = &[List, Revoke, RevokeAll];
/// The calls after which the index shows something else.
const WRITES: &[Method] = &[
    Create, Update, Renew, Touch, Delete, DeleteAt, Sweep, TrySweep, Revoke, RevokeAll,
];

pub(super) const CONTRACT: &[Sentence] = &[
    Sentence {
        item: "SubjectIndex",
        text: "The index follows every write: a record is found under the subject of its last write from the `Ok` of that write on, and is not found once it is not live.",
        methods: &[
            Create, Update, Renew, Touch, Delete, DeleteAt, Sweep, TrySweep, List, Revoke,
            RevokeAll,
        ],
        rows: &[
            none(WRITES, FAULTS, FAILS),
            none(INDEX, FAULTS, FAILS),
            none(WRITES, &[OtherNamespace], APART),
            none(INDEX, &[OtherNamespace], APART),
            none(
                WRITES,
                &[Absent, Expired, Deleted],
                "the call writes nothing",
            ),
            none(WRITES, &[Unreadable], NOT_READABLE),
            none(INDEX, &[Unreadable], "a list cannot tell whose it is"),
            read(&[Create], &[Absent], "N01 X03"),
            none(
                &[Create],
                &[Live, SecondHandle],
                "the sentence of `Exists`: nothing is written",
            ),
            read(&[Update, Touch, Delete, DeleteAt], &[Live], "N03 X03"),
            read(&[Renew], &[Live], "N03"),
            read(&[List], &[Absent, Live, Expired, Deleted], "N03"),
            read(&[List], &[SecondHandle], "N01"),
            read(&[Revoke], &[Live, Deleted], "N04"),
            read(&[RevokeAll], &[Live, Expired, Deleted], "N04"),
            read(&[RevokeAll], &[SecondHandle], "N05"),
            read(&[Revoke], &[SecondHandle], "R08"),
            none(
                &[Revoke, RevokeAll],
                &[Absent],
                "there is no record to be found",
            ),
            read(&[Create], &[Expired], "T13 N45"),
            read(&[Create], &[Deleted], "N45"),
            read(&[Sweep], &[Live, Expired, Deleted], "W41"),
            none(
                &[TrySweep],
                &[Live, Expired, Deleted],
                "it removes what is in no list any more; W41 reads that of the sweep that it is",
            ),
            read(&[Update, Touch], &[SecondHandle], "N45"),
            none(
                &[Renew, Delete, DeleteAt, Sweep, TrySweep],
                &[SecondHandle],
                "an index does not know who has written a record: N45 reads it of `update` and `touch`",
            ),
            read(&[Revoke], &[Expired], "N44"),
        ],
    },
    Sentence {
        item: "SubjectIndex",
        text: "Subjects are compared byte for byte.",
        methods: INDEX,
        rows: &[
            none(INDEX, GONE, "there is no subject to compare"),
            none(INDEX, &[Unreadable], NOT_READABLE),
            none(INDEX, FAULTS, FAILS),
            none(INDEX, &[OtherNamespace], APART),
            none(
                INDEX,
                &[SecondHandle],
                "a subject is compared alike, whoever has written it",
            ),
            read(&[List], &[Live], "S05 N04"),
            read(&[RevokeAll], &[Live], "N04 S05"),
            read(&[Revoke], &[Live], "N04"),
        ],
    },
    Sentence {
        item: "SubjectIndex",
        text: "A record that cannot be read stands in nobody's way: the others are listed and ended.",
        methods: INDEX,
        rows: &[
            none(INDEX, RECORD, "every record can be read"),
            none(INDEX, FAULTS, FAILS),
            none(INDEX, &[OtherNamespace], APART),
            none(
                INDEX,
                &[SecondHandle],
                "what cannot be read has no writer that a store could know",
            ),
            read(&[List, RevokeAll], &[Unreadable], "N46"),
            read(&[Revoke], &[Live], "N46"),
            none(
                &[Revoke],
                &[Unreadable],
                "the call is about the record itself, and not about one of the others",
            ),
        ],
    },
    Sentence {
        item: "list",
        text: "The live sessions of a subject in ascending order of their keys, at most `limit` of them, starting behind `after`.",
        methods: &[List],
        rows: &[
            none(&[List], FAULTS, FAILS),
            read(&[List], &[Absent], "N01"),
            read(&[List], &[Live], "N01 N02"),
            read(&[List], &[Expired], "N01 N03"),
            read(&[List], &[Deleted], "N02 N03"),
            read(&[List], &[SecondHandle], "N01"),
            read(&[List], &[OtherNamespace], "I01 I02"),
            read(&[List], &[Unreadable], "N46"),
        ],
    },
    Sentence {
        item: "list",
        text: "A session that lives during a whole listing appears in it exactly once, whatever comes and goes meanwhile.",
        methods: &[List],
        rows: &[
            none(&[List], FAULTS, FAILS),
            none(&[List], &[OtherNamespace], APART),
            none(&[List], &[Absent], NO_SESSION),
            read(&[List], &[Live, Deleted], "N02"),
            read(&[List], &[Expired], "N43"),
            read(&[List], &[Unreadable], "N46"),
            none(
                &[List],
                &[SecondHandle],
                "a session is listed alike, whoever has written it",
            ),
        ],
    },
    Sentence {
        item: "list",
        text: "The errors of the backend.",
        methods: &[List],
        rows: &[
            none(&[List], RECORD, WORKS),
            none(&[List], &[SecondHandle, OtherNamespace], WHOEVER_ASKS),
            none(&[List], &[Full], "a full backend answers a `list` as ever"),
            read(&[List], &[Down], "E01"),
            read(&[List], &[Hanging], "E14"),
            read(&[List], &[LostAnswer], "E61"),
        ],
    },
    Sentence {
        item: "revoke",
        text: "Ends one session if it belongs to the subject.",
        methods: &[Revoke],
        rows: &[
            none(&[Revoke], FAULTS, FAILS),
            none(&[Revoke], &[Absent, Deleted], NO_SESSION),
            none(&[Revoke], &[Expired], "it has ended already"),
            read(&[Revoke], &[Live], "N04"),
            read(&[Revoke], &[SecondHandle], "R08"),
            read(&[Revoke], &[OtherNamespace], "I50"),
            none(
                &[Revoke],
                &[Unreadable],
                "nobody knows whose it is: it may end or stay",
            ),
        ],
    },
    Sentence {
        item: "revoke",
        text: "Returns whether it was live.",
        methods: &[Revoke],
        rows: &[
            none(&[Revoke], FAULTS, FAILS),
            none(&[Revoke], &[Unreadable], "nobody knows whether it was live"),
            none(
                &[Revoke],
                &[SecondHandle],
                "the answer is about the record, whoever has written it",
            ),
            read(&[Revoke], &[Absent, Live, Deleted], "N04"),
            read(&[Revoke], &[OtherNamespace], "I50"),
            read(&[Revoke], &[Expired], "N44"),
        ],
    },
    Sentence {
        item: "revoke",
        text: "The errors of the backend.",
        methods: &[Revoke],
        rows: &[
            none(&[Revoke], RECORD, WORKS),
            none(&[Revoke], &[SecondHandle, OtherNamespace], WHOEVER_ASKS),
            read(&[Revoke], &[Down], "E01"),
            read(&[Revoke], &[Hanging], "E14"),
            read(&[Revoke], &[Full], "E63"),
            read(&[Revoke], &[LostAnswer], "E61"),
        ],
    },
    Sentence {
        item: "revoke_all",
        text: "Ends every session of the subject that was stored before the call, but the one under `except`.",
        methods: &[RevokeAll],
        rows: &[
            none(&[RevokeAll], FAULTS, FAILS),
            none(&[RevokeAll], &[Absent], NO_SESSION),
            read(&[RevokeAll], &[Live], "N04 N05 N07"),
            read(&[RevokeAll], &[Expired, Deleted], "N04"),
            read(&[RevokeAll], &[SecondHandle], "N05 N07"),
            read(&[RevokeAll], &[OtherNamespace], "I01 I02"),
            read(&[RevokeAll], &[Unreadable], "N46"),
        ],
    },
    Sentence {
        item: "revoke_all",
        text: "Returns how many were live.",
        methods: &[RevokeAll],
        rows: &[
            none(&[RevokeAll], FAULTS, FAILS),
            read(&[RevokeAll], &[Live, Expired, Deleted], "N04"),
            read(&[RevokeAll], &[OtherNamespace], "I01 I02"),
            none(
                &[RevokeAll],
                &[SecondHandle],
                "a session counts alike, whoever has written it",
            ),
            none(
                &[RevokeAll],
                &[Unreadable],
                "nobody knows whose it was, or whether it was live",
            ),
            read(&[RevokeAll], &[Absent], "N45"),
        ],
    },
    Sentence {
        item: "revoke_all",
        text: "The errors of the backend.",
        methods: &[RevokeAll],
        rows: &[
            none(&[RevokeAll], RECORD, WORKS),
            none(&[RevokeAll], &[SecondHandle, OtherNamespace], WHOEVER_ASKS),
            read(&[RevokeAll], &[Down], "E01"),
            read(&[RevokeAll], &[Hanging], "E14"),
            read(&[RevokeAll], &[Full], "E63"),
            read(&[RevokeAll], &[LostAnswer], "E61"),
        ],
    },
    Sentence {
        item: "revoke_all",
        text: "Some of the sessions may have ended",
        methods: &[RevokeAll],
        rows: REPEATED,
    },
    Sentence {
        item: "revoke_all",
        text: "repeating the call is safe.",
        methods: &[RevokeAll],
        rows: REPEATED,
    },
];

/// What the sentences about a `revoke_all` that failed have in common.
const REPEATED: &[super::super::Row] = &[
    none(&[RevokeAll], RECORD, WORKS),
    none(&[RevokeAll], &[SecondHandle, OtherNamespace], WHOEVER_ASKS),
    read(&[RevokeAll], &[Hanging], "E14"),
    read(&[RevokeAll], &[Full], "E63"),
    read(&[RevokeAll], &[Down], "N40"),
    read(&[RevokeAll], &[LostAnswer], "E61"),
];
