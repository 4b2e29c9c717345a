//! What each method of a store says of itself.

use super::{
    super::{
        Method::{Create, Delete, DeleteAt, Load, Ping, Renew, Sweep, Touch, TrySweep, Update},
        Sentence,
        State::{
            Absent, Deleted, Down, Expired, Full, Hanging, Live, LostAnswer, OtherNamespace,
            SecondHandle, Unreadable,
        },
    },
    APART, FAILS, FAULTS, GONE, NO_SESSION, NOT_READABLE, RECORD, WHOEVER_ASKS, WORKS, none, read,
};

const SIZE_FIRST: &str = "the size is looked at before the backend is asked";

pub(super) const CONTRACT: &[Sentence] = &[
    Sentence {
        item: "create",
        text: "Stores a new record and returns the token that now names it.",
        methods: &[Create],
        rows: &[
            none(&[Create], FAULTS, FAILS),
            none(&[Create], &[OtherNamespace], APART),
            none(&[Create], &[Live, SecondHandle], "the sentence of `Exists`"),
            read(&[Create], &[Absent], "L01 F09"),
            read(&[Create], &[Expired], "T13"),
            read(&[Create], &[Deleted], "L11"),
            read(&[Create], &[Unreadable], "L50"),
        ],
    },
    Sentence {
        item: "create",
        text: "Of any number of concurrent calls with one token exactly one succeeds.",
        methods: &[Create],
        rows: &[
            none(&[Create], FAULTS, FAILS),
            none(&[Create], &[OtherNamespace], APART),
            none(&[Create], &[Unreadable], NOT_READABLE),
            read(&[Create], &[Absent, Live, SecondHandle], "C01"),
            read(&[Create], &[Expired, Deleted], "F09 L52"),
        ],
    },
    Sentence {
        item: "create",
        text: "A record whose expiry has passed is accepted and is not visible.",
        methods: &[Create],
        rows: &[
            none(&[Create], FAULTS, FAILS),
            none(&[Create], &[OtherNamespace], APART),
            none(&[Create], &[Unreadable], NOT_READABLE),
            none(
                &[Create],
                &[Live, SecondHandle],
                "the sentence of `Exists`, whatever the new record is",
            ),
            read(&[Create], &[Absent], "T03 L11 N01"),
            read(&[Create], &[Expired], "L52"),
            read(&[Create], &[Deleted], "L52"),
        ],
    },
    Sentence {
        item: "create",
        text: "A server-side store returns the token it was given; a client-side store returns one that contains the record.",
        methods: &[Create],
        rows: &[
            none(&[Create], FAULTS, FAILS),
            none(&[Create], &[OtherNamespace], APART),
            none(&[Create], &[Unreadable], NOT_READABLE),
            none(
                &[Create],
                &[Live, SecondHandle],
                "the sentence of `Exists`: no token is returned",
            ),
            read(&[Create], &[Absent], "L01 Y02"),
            read(&[Create], &[Expired, Deleted], "L52"),
        ],
    },
    Sentence {
        item: "create",
        text: "[`Exists`](crate::ErrorKind::Exists) when a live record is stored under the token, which stays as it is",
        methods: &[Create],
        rows: &[
            none(
                &[Create],
                &[Absent, Expired, Deleted],
                "no live record is in the way",
            ),
            none(
                &[Create],
                &[Unreadable],
                "nobody knows whether it is live: L50 takes an error and a new record",
            ),
            none(&[Create], FAULTS, FAILS),
            read(&[Create], &[Live, SecondHandle], "L06 K09"),
            read(&[Create], &[OtherNamespace], "I01 I02"),
        ],
    },
    Sentence {
        item: "create",
        text: "[`TooLarge`](crate::ErrorKind::TooLarge)",
        methods: &[Create],
        rows: &[
            none(&[Create], RECORD, SIZE_FIRST),
            none(&[Create], FAULTS, SIZE_FIRST),
            none(&[Create], &[SecondHandle, OtherNamespace], SIZE_FIRST),
            read(&[Create], &[Absent], "B01 F04"),
        ],
    },
    Sentence {
        item: "create",
        text: "[`Full`](crate::ErrorKind::Full)",
        methods: &[Create],
        rows: &[
            none(&[Create], RECORD, WORKS),
            none(
                &[Create],
                &[Down, Hanging, LostAnswer],
                "the backend is not full",
            ),
            none(&[Create], &[SecondHandle, OtherNamespace], WHOEVER_ASKS),
            read(&[Create], &[Full], "E08"),
        ],
    },
    Sentence {
        item: "create",
        text: "and the errors of the backend.",
        methods: &[Create],
        rows: &[
            none(&[Create], RECORD, WORKS),
            none(&[Create], &[SecondHandle, OtherNamespace], WHOEVER_ASKS),
            none(&[Create], &[Full], "the sentence of `Full`"),
            read(&[Create], &[Down], "E01"),
            read(&[Create], &[Hanging], "E04"),
            // K3: LostAnswer
        ],
    },
    Sentence {
        item: "load",
        text: "The live record of a token.",
        methods: &[Load],
        rows: &[
            none(&[Load], FAULTS, FAILS),
            none(&[Load], &[Unreadable], "the sentence of `Corrupt`"),
            read(&[Load], &[Absent], "L02 K02"),
            read(&[Load], &[Live], "L01 L03"),
            read(&[Load], &[Expired], "T01 T03"),
            read(&[Load], &[Deleted], "L04"),
            read(&[Load], &[Full], "E08"),
            read(&[Load], &[SecondHandle], "L09"),
            read(&[Load], &[OtherNamespace], "I01 I02"),
        ],
    },
    Sentence {
        item: "load",
        text: "Stores nothing and extends nothing.",
        methods: &[Load],
        rows: &[
            none(&[Load], FAULTS, FAILS),
            none(&[Load], &[OtherNamespace], APART),
            read(&[Load], &[Absent], "L02"),
            read(&[Load], &[Live], "T01"),
            read(&[Load], &[Expired, Deleted], "L51"),
            read(&[Load], &[Unreadable], "L50"),
            read(&[Load], &[SecondHandle], "T01"),
        ],
    },
    Sentence {
        item: "load",
        text: "[`Corrupt`](crate::ErrorKind::Corrupt) when what is stored cannot be read as a record, and the errors of the backend.",
        methods: &[Load],
        rows: &[
            none(&[Load], RECORD, "what is stored can be read"),
            none(&[Load], &[OtherNamespace], APART),
            none(&[Load], &[Full], "a full backend answers a `load` as ever"),
            read(&[Load], &[Unreadable], "F07 F08 B02"),
            read(&[Load], &[Down], "E01"),
            read(&[Load], &[Hanging], "E04"),
            read(&[Load], &[SecondHandle], "F07 B02"),
            // K3: LostAnswer
        ],
    },
    Sentence {
        item: "load",
        text: "A client-side store answers `Ok(None)` to a token that it has not sealed itself, whatever is wrong with it.",
        methods: &[Load],
        rows: &[
            none(
                &[Load],
                &[Live, Deleted],
                "a token that was sealed by the store, or by nobody",
            ),
            none(
                &[Load],
                &[Expired],
                "a token that the store has sealed itself; Y04 has its expiry",
            ),
            none(
                &[Load],
                &[Unreadable],
                "a token that cannot be read was not sealed by the store: it is an absent one",
            ),
            none(&[Load], FAULTS, "there is no backend"),
            none(
                &[Load],
                &[SecondHandle],
                "all handles of a namespace have the same keys",
            ),
            read(&[Load], &[Absent], "Y01 Y02 Y09"),
            read(&[Load], &[OtherNamespace], "Y02 Y03"),
        ],
    },
    Sentence {
        item: "update",
        text: "Replaces a live record whose revision is `expected` in one step, all of its fields, and returns the token that names it from now on.",
        methods: &[Update, Renew],
        rows: &[
            none(&[Update, Renew], GONE, NO_SESSION),
            none(&[Update, Renew], &[Unreadable], NOT_READABLE),
            none(&[Update, Renew], FAULTS, FAILS),
            none(&[Update, Renew], &[OtherNamespace], APART),
            read(&[Update], &[Live], "L03 T04 T05 C02"),
            read(&[Update], &[SecondHandle], "L09 C02 C03"),
            read(&[Renew], &[Live, SecondHandle], "K50"),
        ],
    },
    Sentence {
        item: "update",
        text: "Never inserts.",
        methods: &[Update, Renew],
        rows: &[
            none(&[Update, Renew], &[Live], "there is a record to replace"),
            none(&[Update, Renew], FAULTS, FAILS),
            read(&[Update, Renew], &[Absent], "L05 L51"),
            read(&[Update, Renew], &[Expired], "T13 L51"),
            read(&[Update], &[Deleted], "L51"),
            read(&[Renew], &[Deleted], "L51"),
            read(&[Update, Renew], &[Unreadable], "L50"),
            read(&[Update, Renew], &[SecondHandle], "L51"),
            read(&[Update, Renew], &[OtherNamespace], "I50"),
        ],
    },
    Sentence {
        item: "update",
        text: "A server-side store returns the token it was given.",
        methods: &[Update, Renew],
        rows: &[
            none(&[Update, Renew], GONE, NO_SESSION),
            none(&[Update, Renew], &[Unreadable], NOT_READABLE),
            none(&[Update, Renew], FAULTS, FAILS),
            none(&[Update, Renew], &[OtherNamespace], APART),
            read(&[Update, Renew], &[Live, SecondHandle], "K50"),
        ],
    },
    Sentence {
        item: "update",
        text: "A renewal is an update too: the token has the same key and another secret.",
        methods: &[Update, Renew],
        rows: &[
            none(&[Update, Renew], GONE, NO_SESSION),
            none(&[Update, Renew], &[Unreadable], NOT_READABLE),
            none(&[Update, Renew], FAULTS, FAILS),
            none(&[Update, Renew], &[OtherNamespace], APART),
            read(&[Update, Renew], &[Live, SecondHandle], "K50"),
            read(&[Renew], &[Live, SecondHandle], "K50 R01"),
        ],
    },
    Sentence {
        item: "update",
        text: "[`Conflict`](crate::ErrorKind::Conflict) when the stored revision is another",
        methods: &[Update, Renew],
        rows: &[
            none(&[Update, Renew], GONE, "there is no revision to compare"),
            none(&[Update, Renew], &[Unreadable], NOT_READABLE),
            none(&[Update, Renew], FAULTS, FAILS),
            none(&[Update, Renew], &[OtherNamespace], APART),
            read(&[Update], &[Live], "C02 F09 X05"),
            read(&[Update], &[SecondHandle], "C02 C09"),
            read(&[Renew], &[Live, SecondHandle], "K50"),
        ],
    },
    Sentence {
        item: "update",
        text: "[`Missing`](crate::ErrorKind::Missing)",
        methods: &[Update, Renew],
        rows: &[
            none(&[Update, Renew], &[Live], "the record is there"),
            none(
                &[Update, Renew],
                &[Unreadable],
                "something is there: L50 takes every error",
            ),
            none(&[Update, Renew], FAULTS, FAILS),
            read(&[Update, Renew], &[Absent], "L05"),
            read(&[Update, Renew], &[Expired], "T13"),
            read(&[Update], &[Deleted], "L51"),
            read(&[Renew], &[Deleted], "L51"),
            read(&[Update, Renew], &[SecondHandle], "L51"),
            read(&[Update, Renew], &[OtherNamespace], "I50"),
        ],
    },
    Sentence {
        item: "update",
        text: "[`TooLarge`](crate::ErrorKind::TooLarge)",
        methods: &[Update, Renew],
        rows: &[
            none(&[Update, Renew], RECORD, SIZE_FIRST),
            none(&[Update, Renew], FAULTS, SIZE_FIRST),
            none(
                &[Update, Renew],
                &[SecondHandle, OtherNamespace],
                SIZE_FIRST,
            ),
            read(&[Update, Renew], &[Live], "B01"),
        ],
    },
    Sentence {
        item: "update",
        text: "[`Full`](crate::ErrorKind::Full)",
        methods: &[Update, Renew],
        rows: &[
            none(&[Update, Renew], RECORD, WORKS),
            none(
                &[Update, Renew],
                &[Down, Hanging, LostAnswer],
                "the backend is not full",
            ),
            none(
                &[Update, Renew],
                &[SecondHandle, OtherNamespace],
                WHOEVER_ASKS,
            ),
            read(&[Update], &[Full], "E08"),
            // K3: Renew, Full
        ],
    },
    Sentence {
        item: "update",
        text: "and the errors of the backend.",
        methods: &[Update, Renew],
        rows: &[
            none(&[Update, Renew], RECORD, WORKS),
            none(
                &[Update, Renew],
                &[SecondHandle, OtherNamespace],
                WHOEVER_ASKS,
            ),
            none(&[Update, Renew], &[Full], "the sentence of `Full`"),
            read(&[Update], &[Down], "E01"),
            read(&[Update], &[Hanging], "E04"),
            read(&[Renew], &[Down, Hanging], "E40"),
            // K3: LostAnswer
        ],
    },
    Sentence {
        item: "renew",
        text: "[`update`](Self::update), after which every other copy of the session that a client may hold is dead.",
        methods: &[Renew],
        rows: &[
            none(&[Renew], GONE, NO_SESSION),
            none(&[Renew], &[Unreadable], NOT_READABLE),
            none(&[Renew], FAULTS, FAILS),
            none(&[Renew], &[OtherNamespace], APART),
            read(&[Renew], &[Live, SecondHandle], "R01 R11"),
        ],
    },
    Sentence {
        item: "renew",
        text: "On a server there is one record and no copy: this is `update`, as provided.",
        methods: &[Renew],
        rows: &[
            none(&[Renew], FAULTS, FAILS),
            none(&[Renew], &[OtherNamespace], APART),
            read(&[Renew], &[Absent], "L05"),
            read(&[Renew], &[Live], "K09 L09 B01"),
            read(&[Renew], &[Expired], "T13"),
            read(&[Renew], &[Deleted], "L51"),
            read(&[Renew], &[Unreadable], "L50"),
            read(&[Renew], &[SecondHandle], "K50"),
        ],
    },
    Sentence {
        item: "renew",
        text: "As [`update`](Self::update).",
        methods: &[Renew],
        rows: &[
            none(&[Renew], &[OtherNamespace], APART),
            read(&[Renew], &[Absent], "L05"),
            read(&[Renew], &[Live], "B01 K50"),
            read(&[Renew], &[Expired], "T13"),
            read(&[Renew], &[Deleted], "L51"),
            read(&[Renew], &[Unreadable], "L50"),
            read(&[Renew], &[Down, Hanging], "E40"),
            read(&[Renew], &[SecondHandle], "K50"),
            // K3: Full, LostAnswer
        ],
    },
    Sentence {
        item: "touch",
        text: "Sets the expiry of a live record, to a later or an earlier instant, and changes nothing else (the revision stays).",
        methods: &[Touch],
        rows: &[
            none(&[Touch], GONE, NO_SESSION),
            none(&[Touch], &[Unreadable], NOT_READABLE),
            none(&[Touch], FAULTS, FAILS),
            none(&[Touch], &[OtherNamespace], APART),
            read(&[Touch], &[Live], "T05 T06 L09"),
            read(&[Touch], &[SecondHandle], "L09"),
        ],
    },
    Sentence {
        item: "touch",
        text: "Returns the token that names the record from now on.",
        methods: &[Touch],
        rows: &[
            none(&[Touch], GONE, NO_SESSION),
            none(&[Touch], &[Unreadable], NOT_READABLE),
            none(&[Touch], FAULTS, FAILS),
            none(&[Touch], &[OtherNamespace], APART),
            read(&[Touch], &[Live, SecondHandle], "L09 K50"),
        ],
    },
    Sentence {
        item: "touch",
        text: "[`Missing`](crate::ErrorKind::Missing), and the errors of the backend.",
        methods: &[Touch],
        rows: &[
            none(&[Touch], &[Live], "the record is there"),
            none(
                &[Touch],
                &[Unreadable],
                "something is there: L50 takes every error",
            ),
            read(&[Touch], &[Absent], "L05"),
            read(&[Touch], &[Expired], "T06 T13"),
            read(&[Touch], &[Deleted], "L51"),
            read(&[Touch], &[Down], "E01"),
            read(&[Touch], &[Hanging], "E04"),
            read(&[Touch], &[SecondHandle], "L51"),
            read(&[Touch], &[OtherNamespace], "I01"),
            // K3: Full, LostAnswer
        ],
    },
    Sentence {
        item: "delete",
        text: "Removes the record of a token.",
        methods: &[Delete, DeleteAt],
        rows: &[
            none(
                &[Delete, DeleteAt],
                &[Absent, Deleted],
                "there is nothing to remove",
            ),
            none(&[Delete, DeleteAt], FAULTS, FAILS),
            none(&[Delete, DeleteAt], &[OtherNamespace], APART),
            read(&[Delete, DeleteAt], &[Live, SecondHandle], "L11"),
            read(&[Delete], &[Expired], "L53"),
            none(
                &[DeleteAt],
                &[Expired],
                "the sentence of `Some` speaks of live records; a sweep takes the others",
            ),
            read(&[Delete], &[Unreadable], "F07 W04"),
            none(
                &[DeleteAt],
                &[Unreadable],
                "the record stays, under `Corrupt`",
            ),
            read(&[Delete], &[Full], "E08"),
        ],
    },
    Sentence {
        item: "delete",
        text: "After `Ok` no handle, cache or host returns the record.",
        methods: &[Delete, DeleteAt],
        rows: &[
            none(
                &[Delete, DeleteAt],
                &[Absent, Expired, Deleted],
                "no handle returned a record before",
            ),
            none(
                &[Delete, DeleteAt],
                FAULTS,
                "there is no `Ok`, or it is that of *live*",
            ),
            none(&[Delete, DeleteAt], &[OtherNamespace], APART),
            none(
                &[DeleteAt],
                &[Unreadable],
                "there is no `Ok`, but `Corrupt`",
            ),
            read(&[Delete], &[Live], "L04 C11"),
            read(&[Delete], &[SecondHandle], "L11 C15"),
            read(&[DeleteAt], &[Live, SecondHandle], "L11"),
            read(&[Delete], &[Unreadable], "F07"),
            read(&[Delete], &[Full], "E08"),
        ],
    },
    Sentence {
        item: "delete",
        text: "With `None`, whatever is there goes: live, expired or unreadable.",
        methods: &[Delete],
        rows: &[
            none(&[Delete], &[Absent, Deleted], "there is nothing to go"),
            none(&[Delete], FAULTS, FAILS),
            none(&[Delete], &[OtherNamespace], APART),
            read(&[Delete], &[Live, SecondHandle], "L11"),
            read(&[Delete], &[Expired], "L53"),
            read(&[Delete], &[Unreadable], "F07 W04"),
            read(&[Delete], &[Full], "E08"),
        ],
    },
    Sentence {
        item: "delete",
        text: "With `Some`, a live record goes only if that is its revision, in one step.",
        methods: &[DeleteAt],
        rows: &[
            none(&[DeleteAt], &[Absent, Expired, Deleted], NO_SESSION),
            none(&[DeleteAt], FAULTS, FAILS),
            none(&[DeleteAt], &[OtherNamespace], APART),
            read(&[DeleteAt], &[Live, SecondHandle], "L12 C16"),
            read(&[DeleteAt], &[Unreadable], "F07 L50"),
        ],
    },
    Sentence {
        item: "delete",
        text: "Returns whether this call ended a live record: of any number of concurrent calls for one record exactly one says `true`.",
        methods: &[Delete, DeleteAt],
        rows: &[
            none(&[Delete, DeleteAt], FAULTS, FAILS),
            read(&[Delete, DeleteAt], &[Absent, Expired], "L11"),
            read(
                &[Delete, DeleteAt],
                &[Live, Deleted, SecondHandle],
                "L11 C15",
            ),
            none(&[Delete], &[Unreadable], "nobody knows whether it was live"),
            none(
                &[DeleteAt],
                &[Unreadable],
                "the record stays, under `Corrupt`",
            ),
            read(&[Delete, DeleteAt], &[OtherNamespace], "I50"),
            read(&[Delete], &[Full], "E08"),
        ],
    },
    Sentence {
        item: "delete",
        text: "Nothing there is `Ok(false)`.",
        methods: &[Delete, DeleteAt],
        rows: &[
            none(
                &[Delete, DeleteAt],
                &[Live, Unreadable],
                "something is there",
            ),
            none(&[Delete, DeleteAt], FAULTS, FAILS),
            read(&[Delete, DeleteAt], &[Absent, Expired, Deleted], "L11"),
            none(&[Delete, DeleteAt], &[SecondHandle], "nothing is nobody's"),
            read(&[Delete, DeleteAt], &[OtherNamespace], "I50"),
        ],
    },
    Sentence {
        item: "delete",
        text: "A store does not repeat a call that may have taken effect, since the repetition would say `false`: a lost answer is [`Ambiguous`](crate::ErrorKind::Ambiguous).",
        methods: &[Delete, DeleteAt],
        rows: &[
            none(&[Delete, DeleteAt], RECORD, "no answer is lost"),
            none(
                &[Delete, DeleteAt],
                &[Full, Down, Hanging],
                "the call has not taken effect, or nobody can say so: the sentence of `Ambiguous`",
            ),
            none(
                &[Delete, DeleteAt],
                &[SecondHandle, OtherNamespace],
                WHOEVER_ASKS,
            ),
            // K3: LostAnswer
        ],
    },
    Sentence {
        item: "delete",
        text: "[`Conflict`](crate::ErrorKind::Conflict) when a live record has another revision than `expected`, and [`Corrupt`](crate::ErrorKind::Corrupt) when it cannot be read to be compared",
        methods: &[DeleteAt],
        rows: &[
            none(&[DeleteAt], GONE, "there is no revision to compare"),
            none(&[DeleteAt], FAULTS, FAILS),
            none(&[DeleteAt], &[OtherNamespace], APART),
            read(&[DeleteAt], &[Live, SecondHandle], "L12 C09"),
            read(&[DeleteAt], &[Unreadable], "F07 L50"),
        ],
    },
    Sentence {
        item: "delete",
        text: "the record stays then.",
        methods: &[DeleteAt],
        rows: &[
            none(&[DeleteAt], GONE, "there is nothing to stay"),
            none(&[DeleteAt], FAULTS, FAILS),
            none(&[DeleteAt], &[OtherNamespace], APART),
            read(&[DeleteAt], &[Live, SecondHandle], "L12"),
            read(&[DeleteAt], &[Unreadable], "L50"),
        ],
    },
    Sentence {
        item: "delete",
        text: "[`Unsupported`](crate::ErrorKind::Unsupported) from a client-side store that cannot take back what the client holds.",
        methods: &[Delete, DeleteAt],
        rows: &[
            none(
                &[Delete, DeleteAt],
                RECORD,
                "the store holds nothing to remove, whatever the token is",
            ),
            none(&[Delete, DeleteAt], FAULTS, "there is no backend"),
            none(
                &[Delete, DeleteAt],
                &[SecondHandle, OtherNamespace],
                "every handle refuses alike",
            ),
            read(&[Delete], &[Live], "Y08"),
            read(&[DeleteAt], &[Live], "Y60"),
            read(&[Delete, DeleteAt], &[Absent, Expired], "Y60"),
        ],
    },
    Sentence {
        item: "delete",
        text: "And the errors of the backend.",
        methods: &[Delete, DeleteAt],
        rows: &[
            none(&[Delete, DeleteAt], RECORD, WORKS),
            none(
                &[Delete, DeleteAt],
                &[SecondHandle, OtherNamespace],
                WHOEVER_ASKS,
            ),
            read(&[Delete], &[Full], "E08"),
            read(&[Delete, DeleteAt], &[Down], "E01"),
            read(&[Delete, DeleteAt], &[Hanging], "E04"),
            // K3: DeleteAt, Full; both, LostAnswer
        ],
    },
    Sentence {
        item: "sweep",
        text: "Removes at most `limit` expired records, and what is left over from interrupted writes, and returns how many records it removed.",
        methods: &[Sweep, TrySweep],
        rows: &[
            none(&[Sweep, TrySweep], FAULTS, FAILS),
            read(&[Sweep], &[Absent], "F09"),
            none(
                &[TrySweep],
                &[Absent],
                "there is nothing to remove, as in the last calls of W07",
            ),
            read(&[Sweep], &[Live], "W01 X04"),
            read(&[Sweep], &[Expired], "W01 B04"),
            read(&[Sweep], &[Deleted], "W01 B04"),
            read(&[TrySweep], &[Live, Expired, Deleted, SecondHandle], "W07"),
            read(&[Sweep], &[Unreadable], "W04"),
            read(&[Sweep], &[SecondHandle], "W02"),
            read(&[Sweep], &[OtherNamespace], "I01 I02"),
            read(&[TrySweep], &[OtherNamespace], "I50"),
            // K2: TrySweep, Unreadable
        ],
    },
    Sentence {
        item: "sweep",
        text: "Fewer than `limit` means that none is left, or that the deadline came.",
        methods: &[Sweep, TrySweep],
        rows: &[
            none(&[Sweep, TrySweep], FAULTS, FAILS),
            none(&[Sweep, TrySweep], &[OtherNamespace], APART),
            none(
                &[Sweep, TrySweep],
                &[Absent],
                "none is left from the beginning",
            ),
            read(&[Sweep], &[Live, Expired, Deleted], "W01"),
            read(&[Sweep], &[Expired, Deleted], "W01 B04"),
            read(&[TrySweep], &[Live, Expired, Deleted, SecondHandle], "W07"),
            read(&[Sweep], &[Unreadable], "W04"),
            read(&[Sweep], &[SecondHandle], "W02"),
            // K2: TrySweep, Unreadable
        ],
    },
    Sentence {
        item: "sweep",
        text: "Safe beside every other call: a record whose expiry is extended in time survives.",
        methods: &[Sweep, TrySweep],
        rows: &[
            none(&[Sweep, TrySweep], FAULTS, FAILS),
            none(&[Sweep, TrySweep], &[OtherNamespace], APART),
            none(
                &[Sweep, TrySweep],
                &[Absent, Deleted],
                "there is no record that could be extended",
            ),
            none(&[Sweep, TrySweep], &[Unreadable], NOT_READABLE),
            read(&[Sweep], &[Live, Expired, SecondHandle], "C10 W02"),
            read(&[TrySweep], &[Live, Expired, SecondHandle], "W07"),
        ],
    },
    Sentence {
        item: "sweep",
        text: "Where [`Capabilities::sweep`] is [`Sweep::Native`] the backend removes expired records by itself, and this does nothing and returns 0.",
        methods: &[Sweep, TrySweep],
        rows: NATIVE,
    },
    Sentence {
        item: "sweep",
        text: "The errors of the backend",
        methods: &[Sweep],
        rows: &[
            none(&[Sweep], RECORD, WORKS),
            none(&[Sweep], &[SecondHandle, OtherNamespace], WHOEVER_ASKS),
            read(&[Sweep], &[Down], "E01"),
            read(&[Sweep], &[Hanging], "E13"),
            // K2 or K3: Full, LostAnswer
        ],
    },
    Sentence {
        item: "sweep",
        text: "[`Unsupported`](crate::ErrorKind::Unsupported) where [`Capabilities::sweep`] is [`Sweep::Unsupported`].",
        methods: &[Sweep, TrySweep],
        rows: &[
            none(
                &[Sweep, TrySweep],
                RECORD,
                "the store keeps nothing, so that there is no such record",
            ),
            none(&[Sweep, TrySweep], FAULTS, "there is no backend"),
            none(
                &[Sweep, TrySweep],
                &[SecondHandle, OtherNamespace],
                "every handle refuses alike",
            ),
            read(&[Sweep, TrySweep], &[Absent], "W06"),
        ],
    },
    Sentence {
        item: "try_sweep",
        text: "[`sweep`](Self::sweep), unless another process is sweeping the same records at the moment: `None` then.",
        methods: &[TrySweep],
        rows: &[
            none(&[TrySweep], FAULTS, FAILS),
            none(
                &[TrySweep],
                &[Absent, Unreadable],
                "whether another process sweeps does not depend on what there is",
            ),
            read(&[TrySweep], &[Live, Expired, Deleted, SecondHandle], "W07"),
            read(&[TrySweep], &[OtherNamespace], "I50"),
        ],
    },
    Sentence {
        item: "try_sweep",
        text: "What a `Sweeper` calls, so that of many processes one at a time does the work.",
        methods: &[TrySweep],
        rows: &[
            none(&[TrySweep], FAULTS, FAILS),
            none(
                &[TrySweep],
                &[Absent, Unreadable],
                "there is no work to share",
            ),
            none(
                &[TrySweep],
                &[OtherNamespace],
                "each namespace has its own work",
            ),
            read(&[TrySweep], &[Live, Expired, Deleted, SecondHandle], "W07"),
        ],
    },
    Sentence {
        item: "try_sweep",
        text: "As [`sweep`](Self::sweep).",
        methods: &[TrySweep],
        rows: &[
            none(&[TrySweep], RECORD, WORKS),
            none(&[TrySweep], &[SecondHandle, OtherNamespace], WHOEVER_ASKS),
            read(&[TrySweep], &[Hanging], "E13"),
            // K2 or K3: Full, Down, LostAnswer
        ],
    },
    Sentence {
        item: "ping",
        text: "Whether the backend answers now and would take a write: for a health check.",
        methods: &[Ping],
        rows: PING,
    },
    Sentence {
        item: "ping",
        text: "[`Unavailable`](crate::ErrorKind::Unavailable) when it does not, a server that only reads included",
        methods: &[Ping],
        rows: PING_FAILS,
    },
    Sentence {
        item: "ping",
        text: "and the other errors of the backend.",
        methods: &[Ping],
        rows: PING_FAILS,
    },
];

const HAS_ROOM: &str =
    "a full backend answers, and whether it has room for a write shows when there is one";
const ANSWERED: &str =
    "the backend has answered; whether the store asks once more is its own affair";

/// What a `ping` says that succeeds.
const PING: &[super::super::Row] = &[
    none(&[Ping], RECORD, super::NO_RECORD),
    read(&[Ping], &[Absent, Live], "L13"),
    none(&[Ping], &[Full], HAS_ROOM),
    read(&[Ping], &[Down, Hanging], "E12"),
    none(&[Ping], &[LostAnswer], ANSWERED),
    none(&[Ping], &[SecondHandle, OtherNamespace], super::NO_RECORD),
];

/// What a `ping` says that fails.
const PING_FAILS: &[super::super::Row] = &[
    none(&[Ping], RECORD, WORKS),
    none(&[Ping], &[Full], HAS_ROOM),
    read(&[Ping], &[Down, Hanging], "E12"),
    none(&[Ping], &[LostAnswer], ANSWERED),
    none(&[Ping], &[SecondHandle, OtherNamespace], WHOEVER_ASKS),
];

/// The backend's own sweep, which the reference store has not.
const NATIVE: &[super::super::Row] = &[
    none(
        &[Sweep, TrySweep],
        RECORD,
        "W05, on the stores whose backend sweeps; the reference store has none, so that nothing is measured",
    ),
    none(
        &[Sweep, TrySweep],
        FAULTS,
        "the call asks the backend nothing",
    ),
    none(
        &[Sweep, TrySweep],
        &[SecondHandle, OtherNamespace],
        "the call does nothing, whoever makes it",
    ),
];
