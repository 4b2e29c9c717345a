//! What holds for every call.

use super::{
    super::{
        Method::{
            self, Capabilities, Create, Debug, Delete, DeleteAt, Drop, List, Load, Open, Ping,
            Renew, Revoke, RevokeAll, Subjects, Sweep, Touch, TrySweep, Update,
        },
        Sentence,
        State::{
            Absent, Deleted, Down, Expired, Full, Hanging, Live, LostAnswer, OtherNamespace,
            SecondHandle, Unreadable,
        },
    },
    APART, FAILS, FAULTS, GONE, NO_RECORD, NO_SESSION, NOT_READABLE, RECORD, WHOEVER_ASKS, WORKS,
    none, read,
};

/// The calls that are given a token.
const BY_TOKEN: &[Method] = &[Create, Load, Update, Renew, Touch, Delete, DeleteAt];
const INDEX: &[Method] = &[List, Revoke, RevokeAll];
const SWEEPS: &[Method] = &[Sweep, TrySweep];
/// Every call that may wait.
const CALLS: &[Method] = &[
    Create, Load, Update, Renew, Touch, Delete, DeleteAt, Sweep, TrySweep, Ping, List, Revoke,
    RevokeAll,
];
/// The calls that meet records.
const ON_RECORDS: &[Method] = &[
    Create, Load, Update, Renew, Touch, Delete, DeleteAt, Sweep, TrySweep, List, Revoke, RevokeAll,
];
/// The calls that change something.
const WRITES: &[Method] = &[
    Create, Update, Renew, Touch, Delete, DeleteAt, Sweep, TrySweep, Revoke, RevokeAll,
];

const TALKS_TO_NOBODY: &str = "the call is answered from what the handle knows";

/// The calls that E60 makes.
const BY_E60: &[Method] = &[
    Create, Load, Update, Renew, Touch, Delete, DeleteAt, Sweep, TrySweep,
];

/// The calls that E01 makes.
const BY_E01: &[Method] = &[
    Create, Load, Update, Touch, Delete, DeleteAt, Sweep, List, Revoke, RevokeAll,
];

pub(super) const CONTRACT: &[Sentence] = &[
    Sentence {
        item: "SessionStore",
        text: "A session has one record under one key, [`Token::key`], for its whole life.",
        methods: &[
            Create, Load, Update, Renew, Touch, Delete, DeleteAt, List, Revoke,
        ],
        rows: &[
            none(
                ON_RECORDS,
                GONE,
                "there is no session, and so no key of one",
            ),
            none(ON_RECORDS, &[Unreadable], NOT_READABLE),
            none(ON_RECORDS, FAULTS, FAILS),
            read(BY_TOKEN, &[Live, SecondHandle], "K50"),
            read(&[Update], &[Live], "L03 K50"),
            read(&[List], &[Live, SecondHandle], "N01"),
            read(&[Revoke], &[Live], "N04"),
            read(&[Revoke], &[SecondHandle], "R08"),
            read(&[Create], &[Deleted], "C09"),
            read(BY_TOKEN, &[OtherNamespace], "I50"),
            read(&[Create], &[OtherNamespace], "I01"),
            read(&[List], &[OtherNamespace], "I01"),
            read(&[Revoke], &[OtherNamespace], "I50"),
        ],
    },
    Sentence {
        item: "SessionStore",
        text: "Tokens of one key name one record, whatever else differs in them.",
        methods: BY_TOKEN,
        rows: &[
            none(BY_TOKEN, &[Unreadable], NOT_READABLE),
            none(BY_TOKEN, FAULTS, FAILS),
            none(BY_TOKEN, &[OtherNamespace], APART),
            read(
                BY_TOKEN,
                &[Absent, Live, Expired, Deleted, SecondHandle],
                "K50",
            ),
            none(
                &[Create],
                &[Absent],
                "a token with nothing under its key is as good as any other of that key",
            ),
            read(&[Create, Load], &[Live, SecondHandle], "K09 K50"),
        ],
    },
    Sentence {
        item: "SessionStore",
        text: "A record is *live* from the `Ok` of the [`create`](Self::create) that stored it until it is deleted or reaches its [`expires_at`](Record::expires_at), by one clock: the application's, handed to the store when it is opened, or the server's where [`Capabilities::time_source`] says so.",
        methods: ON_RECORDS,
        rows: &[
            none(ON_RECORDS, FAULTS, FAILS),
            none(ON_RECORDS, &[OtherNamespace], APART),
            none(
                ON_RECORDS,
                &[Unreadable],
                "nobody knows when what cannot be read expires",
            ),
            read(&[Create], &[Absent], "L01 L06"),
            read(&[Load], &[Absent], "L02"),
            read(&[Update, Renew, Touch], &[Absent], "L05"),
            read(&[Delete, DeleteAt], &[Absent], "L11"),
            none(
                &[Sweep, TrySweep],
                &[Absent],
                "there is nothing to compare with the clock",
            ),
            read(&[List], &[Absent], "N01"),
            read(&[Revoke], &[Absent], "N04"),
            none(
                &[RevokeAll],
                &[Absent],
                "there is nothing to compare with the clock",
            ),
            read(&[Create], &[Live], "L06"),
            read(&[Load], &[Live], "T02 T04 T05 T09 T12"),
            read(&[Update], &[Live], "T04 T05"),
            read(&[Renew], &[Live], "L09"),
            read(&[Touch], &[Live], "T05 T06 T12"),
            read(&[Delete, DeleteAt], &[Live], "L11"),
            read(&[Sweep], &[Live], "W01 T12"),
            read(&[TrySweep], &[Live], "W07"),
            read(&[List], &[Live], "N01"),
            read(&[Revoke, RevokeAll], &[Live], "N04"),
            read(&[Create], &[Expired], "T13"),
            read(&[Load], &[Expired], "T01 T03 T08 T12"),
            read(&[Update, Renew, Touch], &[Expired], "T13"),
            read(&[Touch], &[Expired], "T06 T13"),
            read(&[Delete, DeleteAt], &[Expired], "L11"),
            read(&[Sweep], &[Expired], "W01 T12"),
            read(&[TrySweep], &[Expired], "W07"),
            read(&[List], &[Expired], "N01 N03"),
            read(&[RevokeAll], &[Expired], "N04"),
            read(&[Revoke], &[Expired], "N44"),
            read(&[Create, Delete, DeleteAt], &[Deleted], "L11"),
            read(&[Load], &[Deleted], "L04 L12"),
            read(&[Update], &[Deleted], "C05"),
            read(&[Renew], &[Deleted], "L51"),
            read(&[Touch], &[Deleted], "C14"),
            read(&[Sweep], &[Deleted], "W01"),
            read(&[TrySweep], &[Deleted], "W07"),
            read(&[List], &[Deleted], "N03"),
            read(&[Revoke, RevokeAll], &[Deleted], "N04"),
            read(ON_RECORDS, &[SecondHandle], "F09"),
            read(&[Renew], &[SecondHandle], "R01"),
            read(&[TrySweep], &[SecondHandle], "W07"),
            read(&[Load, Update, Touch], &[SecondHandle], "L09"),
            read(&[List], &[SecondHandle], "N01"),
            read(&[Revoke], &[SecondHandle], "R08"),
            read(&[RevokeAll], &[SecondHandle], "N05"),
        ],
    },
    Sentence {
        item: "SessionStore",
        text: "The time zone of a process, a database or its sessions never matters.",
        methods: ON_RECORDS,
        rows: &[
            none(ON_RECORDS, FAULTS, FAILS),
            none(
                ON_RECORDS,
                &[Absent, Deleted],
                "there is no time to compare",
            ),
            none(ON_RECORDS, &[Unreadable], NOT_READABLE),
            none(ON_RECORDS, &[OtherNamespace], APART),
            none(
                ON_RECORDS,
                &[SecondHandle],
                "the zone is that of the server or of the process, which all handles share",
            ),
            read(&[Create], &[Absent], "T11"),
            read(ON_RECORDS, &[Live, Expired], "T60"),
            read(&[Load], &[Live, Expired], "T11 T60"),
            read(&[Sweep], &[Live, Expired], "T11"),
        ],
    },
    Sentence {
        item: "SessionStore",
        text: "A token that was never stored, and one whose record was deleted or has expired, are the same: `load` is `Ok(None)`, `delete` is `Ok(false)`, and everything else is [`Missing`](crate::ErrorKind::Missing).",
        methods: &[Load, Update, Renew, Touch, Delete, DeleteAt],
        rows: &[
            none(BY_TOKEN, &[Live], "the record is not absent"),
            none(BY_TOKEN, &[Unreadable], NOT_READABLE),
            none(BY_TOKEN, FAULTS, FAILS),
            read(&[Load], &[Absent], "L02 F09"),
            read(&[Update, Renew, Touch], &[Absent], "L05"),
            read(&[Delete, DeleteAt], &[Absent], "L11"),
            read(&[Load], &[Expired], "T01 T13"),
            read(&[Update, Renew, Touch], &[Expired], "T13"),
            read(&[Delete, DeleteAt], &[Expired], "L11"),
            read(&[Load], &[Deleted], "L04"),
            read(&[Update, Touch], &[Deleted], "F09 L51"),
            read(&[Renew], &[Deleted], "L51"),
            read(&[Delete, DeleteAt], &[Deleted], "L11"),
            read(BY_TOKEN, &[SecondHandle], "L51"),
            read(&[Load, Update, Touch, Delete], &[OtherNamespace], "I01"),
            read(&[Renew, DeleteAt], &[OtherNamespace], "I50"),
        ],
    },
    Sentence {
        item: "SessionStore",
        text: "No call stores anything for such a token except `create`, and `create` sees nothing of a record that was there before.",
        methods: BY_TOKEN,
        rows: &[
            none(BY_TOKEN, &[Live], "the record is not absent"),
            none(
                BY_TOKEN,
                &[Unreadable],
                "what cannot be read is there, and stays as it is",
            ),
            none(BY_TOKEN, FAULTS, FAILS),
            none(BY_TOKEN, &[OtherNamespace], APART),
            read(&[Create], &[Absent], "L01"),
            read(&[Create], &[Expired], "T13"),
            read(&[Create], &[Deleted], "L11 C09"),
            read(&[Load], &[Absent], "L02"),
            read(&[Update, Renew, Touch, Delete, DeleteAt], &[Absent], "L51"),
            read(
                &[Load, Update, Renew, Touch, Delete, DeleteAt],
                &[Expired, Deleted],
                "L51",
            ),
            read(BY_TOKEN, &[SecondHandle], "L51"),
        ],
    },
    Sentence {
        item: "SessionStore",
        text: "Each call takes effect at one instant or not at all, as seen by every handle, process and host that shares the namespace.",
        methods: ON_RECORDS,
        rows: &[
            none(ON_RECORDS, FAULTS, FAILS),
            none(ON_RECORDS, &[OtherNamespace], APART),
            none(
                ON_RECORDS,
                &[Absent, Expired, Deleted],
                "the call changes nothing, and has no instant to be seen",
            ),
            none(ON_RECORDS, &[Unreadable], NOT_READABLE),
            read(&[Create], &[Absent, Expired, Deleted], "F09"),
            read(
                &[Load, Update, Touch, Delete, DeleteAt],
                &[Absent, Live, Expired, Deleted, SecondHandle],
                "F09",
            ),
            read(&[Create], &[Live, SecondHandle], "F09 C01"),
            read(&[Update], &[Live, SecondHandle], "F09 C02 C03"),
            read(&[Delete, DeleteAt], &[Live, SecondHandle], "F09 C15"),
            read(&[Renew], &[Live, SecondHandle], "R05 R06 R08"),
            read(&[Sweep], &[Live, Expired, SecondHandle], "C10 W02"),
            read(&[TrySweep], &[Live, Expired, SecondHandle], "W07"),
            read(&[List], &[Live, SecondHandle], "R09"),
            read(&[Revoke], &[Live, SecondHandle], "R08"),
            read(&[RevokeAll], &[Live, SecondHandle], "N05 N07 R08"),
        ],
    },
    Sentence {
        item: "SessionStore",
        text: "No reader sees half of a write.",
        methods: &[Load, List],
        rows: &[
            none(
                &[Load, List],
                GONE,
                "there is nothing of which a half could be seen",
            ),
            none(&[Load, List], &[Unreadable], NOT_READABLE),
            none(&[Load, List], FAULTS, FAILS),
            none(&[Load, List], &[OtherNamespace], APART),
            read(&[Load], &[Live, SecondHandle], "C04"),
            read(&[List], &[Live], "X03"),
            none(
                &[List],
                &[SecondHandle],
                "a list shows fields that change with a whole record, which C04 reads",
            ),
        ],
    },
    Sentence {
        item: "SessionStore",
        text: "A record comes back as it was given, byte for byte, up to [`Capabilities::max_data`]; larger data are [`TooLarge`](crate::ErrorKind::TooLarge) before anything is written.",
        methods: &[Create, Load, Update, Renew],
        rows: &[
            none(BY_TOKEN, FAULTS, FAILS),
            none(BY_TOKEN, &[OtherNamespace], APART),
            none(BY_TOKEN, &[Unreadable], NOT_READABLE),
            none(&[Load], GONE, NO_SESSION),
            none(&[Update, Renew], GONE, NO_SESSION),
            read(&[Create], &[Absent], "L01 F02 F03 F04 F05 B01"),
            none(
                &[Create],
                &[Live, SecondHandle],
                "the record that is there stays as it is, under `Exists`",
            ),
            read(&[Create], &[Expired], "T13"),
            read(&[Create], &[Deleted], "F09"),
            read(&[Load], &[Live], "L01 F02 F03 F04 F05 L08"),
            read(&[Load], &[SecondHandle], "L09"),
            read(&[Update], &[Live], "L03 F02 F03 F04 B01"),
            read(&[Update], &[SecondHandle], "L09"),
            read(&[Renew], &[Live], "L09 B01"),
            read(&[Renew], &[SecondHandle], "K50"),
        ],
    },
    Sentence {
        item: "SessionStore",
        text: "A failing backend is an error, never `Ok(None)`.",
        methods: CALLS,
        rows: &[
            none(CALLS, RECORD, WORKS),
            none(CALLS, &[SecondHandle, OtherNamespace], WHOEVER_ASKS),
            none(CALLS, &[Full], "a full backend answers"),
            read(&[Create, Update], &[Full], "E08"),
            read(BY_E01, &[Down], "E01"),
            read(&[Renew], &[Down], "E40"),
            read(&[Ping], &[Down], "E12"),
            read(&[TrySweep], &[Down], "W40"),
            read(CALLS, &[Hanging], "E04"),
            read(&[Renew], &[Hanging], "E40"),
            read(&[Ping], &[Hanging], "E12"),
            read(SWEEPS, &[Hanging], "E13"),
            read(INDEX, &[Hanging], "E14"),
            none(
                &[Ping],
                &[LostAnswer],
                "whether a ping that was answered and not heard is repeated is the store's affair",
            ),
            read(BY_E60, &[LostAnswer], "E60"),
            read(INDEX, &[LostAnswer], "E61"),
        ],
    },
    Sentence {
        item: "SessionStore",
        text: "An error other than [`Ambiguous`](crate::ErrorKind::Ambiguous) means that nothing has changed; `Ambiguous` means that the answer was lost and the caller has to read back.",
        methods: WRITES,
        rows: &[
            none(WRITES, &[SecondHandle, OtherNamespace], WHOEVER_ASKS),
            none(WRITES, GONE, "there is nothing that could have changed"),
            read(&[Create], &[Live], "L06"),
            read(&[Update], &[Live], "B01 F09 C02"),
            read(&[Renew], &[Live], "B01"),
            read(&[DeleteAt], &[Live], "L12"),
            none(
                &[Touch, Delete, Sweep, TrySweep, Revoke, RevokeAll],
                &[Live],
                "the call has no error of its own on a live record",
            ),
            read(
                &[Create, Update, Renew, Touch, DeleteAt],
                &[Unreadable],
                "L50",
            ),
            none(
                &[Delete],
                &[Unreadable],
                "the record goes, which is no error",
            ),
            read(&[Sweep], &[Unreadable], "W04"),
            read(&[TrySweep], &[Unreadable], "W04"),
            none(
                &[Revoke, RevokeAll],
                &[Unreadable],
                "nobody knows whose it is: it may end or stay; N46 has the sessions beside it",
            ),
            read(&[Create, Update], &[Full], "E08"),
            read(
                &[Renew, Touch, Delete, DeleteAt, Sweep, TrySweep],
                &[Full],
                "E62",
            ),
            read(&[Revoke, RevokeAll], &[Full], "E63"),
            read(BY_E01, &[Down], "E01"),
            read(&[Renew], &[Down], "E40"),
            read(&[TrySweep], &[Down], "W40"),
            read(
                &[Create, Update, Touch, Delete, DeleteAt],
                &[Hanging],
                "E04",
            ),
            read(&[Renew], &[Hanging], "E40"),
            read(SWEEPS, &[Hanging], "E13"),
            read(INDEX, &[Hanging], "E14"),
            read(BY_E60, &[LostAnswer], "E60"),
            read(INDEX, &[LostAnswer], "E61"),
        ],
    },
    Sentence {
        item: "SessionStore",
        text: "A store repeats a call by itself only when the repetition cannot take effect twice or report a false `Exists`, `Conflict` or `Missing`.",
        methods: WRITES,
        rows: &[
            none(WRITES, RECORD, "there is no cause to repeat a call"),
            none(
                WRITES,
                &[Full],
                "a full backend has answered, and the answer stands",
            ),
            none(
                WRITES,
                &[Down, Hanging],
                "there is nobody to repeat the call to; a false answer would be seen under *never `Ok(None)`*",
            ),
            none(WRITES, &[SecondHandle, OtherNamespace], WHOEVER_ASKS),
            read(BY_E60, &[LostAnswer], "E60"),
            read(INDEX, &[LostAnswer], "E61"),
        ],
    },
    Sentence {
        item: "SessionStore",
        text: "Each call ends within the deadline that the store was opened with, five seconds unless configured otherwise, also when the server hangs.",
        methods: &[
            Open, Create, Load, Update, Renew, Touch, Delete, DeleteAt, Sweep, TrySweep, Ping,
            List, Revoke, RevokeAll,
        ],
        rows: &[
            none(
                &Method::ALL,
                RECORD,
                "the kit gives up a case in which no call ends any more, whatever the case is about",
            ),
            none(
                &Method::ALL,
                &[Full, LostAnswer],
                "the backend has answered or closed the connection: there is nothing to wait for",
            ),
            none(
                &Method::ALL,
                &[SecondHandle, OtherNamespace],
                "the deadline is each handle's own",
            ),
            read(&[Create, Update, Delete], &[Full], "E08"),
            read(&[Open], &[Down], "E02"),
            read(&[Open], &[Hanging], "E43"),
            read(BY_E01, &[Down], "E01"),
            read(&[Renew], &[Down], "E40"),
            read(&[Ping], &[Down], "E12"),
            read(&[TrySweep], &[Down], "W40"),
            read(
                &[Create, Load, Update, Touch, Delete, DeleteAt],
                &[Hanging],
                "E04",
            ),
            read(&[Renew], &[Hanging], "E40"),
            read(SWEEPS, &[Hanging], "E13"),
            read(&[Ping], &[Hanging], "E12"),
            read(INDEX, &[Hanging], "E14"),
            read(&[RevokeAll], &[SecondHandle], "N07"),
            read(&[Update, Load], &[SecondHandle], "C13"),
        ],
    },
    Sentence {
        item: "SessionStore",
        text: "A future may be dropped at any await point.",
        methods: CALLS,
        rows: DROPPED,
    },
    Sentence {
        item: "SessionStore",
        text: "The call has then taken effect or not, and the next call on the same handle gets its own answer.",
        methods: CALLS,
        rows: DROPPED,
    },
    Sentence {
        item: "SessionStore",
        text: "Two namespaces (prefix, table, directory) never see or change each other's records, and whatever else lives beside them is neither read as a session nor removed.",
        methods: &[
            Open, Create, Load, Update, Renew, Touch, Delete, DeleteAt, Sweep, TrySweep, List,
            Revoke, RevokeAll,
        ],
        rows: &[
            none(
                &Method::ALL,
                RECORD,
                "the record is of the namespace itself",
            ),
            none(&Method::ALL, FAULTS, FAILS),
            none(
                &Method::ALL,
                &[SecondHandle],
                "the handle is of the namespace itself",
            ),
            read(&[Open], &[OtherNamespace], "I02 B03"),
            read(
                &[Create, Load, Update, Touch, Delete, List, RevokeAll, Sweep],
                &[OtherNamespace],
                "I01 I02",
            ),
            read(
                &[Renew, DeleteAt, TrySweep, Revoke],
                &[OtherNamespace],
                "I50",
            ),
            read(&[Load, Delete], &[Absent], "I03"),
            read(&[Sweep], &[Expired], "I03"),
            read(&[RevokeAll], &[Absent], "I03"),
        ],
    },
    Sentence {
        item: "SessionStore",
        text: "No token, key, data or password appears in an error, a log line or `Debug`.",
        methods: &[
            Create, Load, Update, Renew, Touch, Delete, DeleteAt, Sweep, TrySweep, Ping, List,
            Revoke, RevokeAll, Debug,
        ],
        rows: &[
            none(
                &Method::ALL,
                &[SecondHandle],
                "an error says nothing about who has written the record",
            ),
            none(
                &Method::ALL,
                &[OtherNamespace],
                "an error of one namespace knows nothing of another: *Separate*",
            ),
            none(
                &Method::ALL,
                &[Expired, Deleted],
                "the errors are those of an absent record",
            ),
            none(&[Ping], RECORD, NO_RECORD),
            none(&[Ping], &[LostAnswer], NO_RECORD),
            read(
                &[
                    Create, Load, Renew, DeleteAt, Sweep, TrySweep, List, RevokeAll, Update,
                ],
                &[Live],
                "S04",
            ),
            read(&[Update, Touch, Delete, Revoke], &[Absent], "S04"),
            read(
                &[
                    Create, Load, Update, Renew, Touch, Delete, DeleteAt, Sweep, TrySweep, Ping,
                    List, Revoke, RevokeAll,
                ],
                &[Full, Down],
                "S04",
            ),
            read(&[Debug], &[Live], "S04"),
            none(
                &[Debug],
                &[Absent, Expired, Deleted],
                "there is nothing to show",
            ),
            none(
                &[
                    Create, Load, Renew, DeleteAt, Sweep, TrySweep, List, RevokeAll,
                ],
                &[Absent],
                "the call succeeds, or fails as the others do",
            ),
            none(
                &[Touch, Delete, Revoke],
                &[Live],
                "the call succeeds, and shows no error",
            ),
            read(
                &[
                    Create, Load, Update, Renew, Touch, DeleteAt, Sweep, TrySweep, List, Revoke,
                    RevokeAll, Debug,
                ],
                &[Unreadable],
                "S40",
            ),
            none(
                &[Delete],
                &[Unreadable],
                "the record goes, which is no error",
            ),
            read(CALLS, &[Hanging], "S42"),
            read(
                &[
                    Create, Load, Update, Renew, Touch, Delete, DeleteAt, Sweep, TrySweep, List,
                    Revoke, RevokeAll,
                ],
                &[LostAnswer],
                "S42",
            ),
            read(&[Debug], &[Full, Down, Hanging], "S42"),
            none(&[Debug], &[LostAnswer], TALKS_TO_NOBODY),
        ],
    },
    Sentence {
        item: "SessionStore",
        text: "Dropping a store closes what it opened and loses no acknowledged write.",
        methods: &[Drop],
        rows: &[
            none(&[Drop], &[Absent], "there is no write to lose"),
            read(&[Drop], &[Live], "L09 L10 E41"),
            none(&[Drop], &[Expired], "nobody can see whether it is lost"),
            none(&[Drop], &[Unreadable], "no store has written it"),
            read(&[Drop], &[Full, Down, Hanging], "E41"),
            none(&[Drop], &[LostAnswer], "a drop asks the backend nothing"),
            read(&[Drop], &[SecondHandle], "E41"),
            none(
                &[Drop],
                &[OtherNamespace],
                "a handle closes what it has opened itself",
            ),
            read(&[Drop], &[Deleted], "E41"),
        ],
    },
    Sentence {
        item: "capabilities",
        text: "The answer never changes during the life of a store, and is the same for every handle of one namespace.",
        methods: &[Capabilities],
        rows: &[
            none(&[Capabilities], RECORD, NO_RECORD),
            read(&[Capabilities], &[Live], "M02"),
            read(&[Capabilities], &[Full, Down, Hanging], "E42"),
            none(&[Capabilities], &[LostAnswer], TALKS_TO_NOBODY),
            read(&[Capabilities], &[SecondHandle], "M02 E42"),
            none(
                &[Capabilities],
                &[OtherNamespace],
                "two namespaces may be configured in two ways",
            ),
        ],
    },
    Sentence {
        item: "subjects",
        text: "The index by subject, on stores that keep one.",
        methods: &[Subjects],
        rows: &[
            none(&[Subjects], RECORD, NO_RECORD),
            read(&[Subjects], &[Live], "M02 N01"),
            read(&[Subjects], &[Full, Down, Hanging], "E42"),
            none(&[Subjects], &[LostAnswer], TALKS_TO_NOBODY),
            read(&[Subjects], &[SecondHandle], "M02 E42"),
            none(
                &[Subjects],
                &[OtherNamespace],
                "two namespaces may be configured in two ways",
            ),
        ],
    },
];

/// What the two sentences about dropped calls have in common.
const DROPPED: &[super::super::Row] = &[
    none(
        CALLS,
        &[Absent, Expired, Deleted],
        "the call changes nothing, whether it is dropped or not",
    ),
    none(
        CALLS,
        &[Unreadable],
        "the call changes nothing, or removes what is there and is then the one of a live record",
    ),
    none(
        CALLS,
        &[Full, Down, LostAnswer],
        "the call fails, whether it is dropped or not",
    ),
    none(CALLS, &[OtherNamespace], APART),
    none(&[Ping], RECORD, NO_RECORD),
    none(&[Ping], &[SecondHandle], NO_RECORD),
    read(&[Create], &[Absent], "X01 X02"),
    none(
        &[Create],
        &[Live, SecondHandle],
        "the call changes nothing, whether it is dropped or not",
    ),
    read(&[Load, Update, Touch, Delete, DeleteAt], &[Live], "X01 X02"),
    read(&[Renew], &[Live], "R11 X60"),
    read(&[Revoke, RevokeAll, List], &[Live], "X60"),
    read(SWEEPS, &[Live, Expired], "X60"),
    read(&[Ping], &[Live], "X60"),
    read(
        &[
            Load, Update, Renew, Touch, Delete, DeleteAt, Sweep, TrySweep, List, Revoke, RevokeAll,
        ],
        &[SecondHandle],
        "X60",
    ),
    read(CALLS, &[Hanging], "X60"),
];
