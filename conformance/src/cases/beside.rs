//! Two actors who each behave well, and sometimes a third one: what one of them does falls into
//! every step of what another one does.

use super::{
    case,
    race::{
        Call::{
            Create, Delete, DeleteAt, GiveToAlice, GiveToBob, GiveToNobody, LateSweep, List, Load,
            Revoke, RevokeAll, RevokeOthers, Sweep, Touch, Update, Visit,
        },
        Race,
        Start::{Absent, Bobs, Expired, Live, Soon},
        run,
    },
};
use crate::{Case, Context, Outcome};

pub(super) const CASES: &[Case] = &[
    case!(parallel Conc c40_of_two_creates_at_any_step_one_succeeds [Server]
        "Of any number of concurrent calls with one token exactly one succeeds."
        "Two processes both believe that the session is theirs."),
    case!(parallel Conc c41_of_two_updates_at_any_step_one_succeeds [Server CompareAndSwap]
        "Replaces a live record whose revision is `expected` in one step, all of its fields"
        "Two requests of one user save, and the changes of one of them are lost silently."),
    case!(parallel Conc c42_an_update_and_a_delete_at_any_step_are_one_after_the_other [Server CompareAndSwap]
        "With `Some`, a live record goes only if that is its revision, in one step."
        "A session comes back that was ended, or goes that was just renewed."),
    case!(parallel Conc c43_of_two_deletes_at_any_step_one_is_true [Server]
        "of any number of concurrent calls for one record exactly one says `true`"
        "Two requests both act on the end of the session, or neither does."),
    case!(parallel Conc c44_a_touch_at_any_step_of_a_write_keeps_it [Server CompareAndSwap]
        "Sets the expiry of a live record, to a later or an earlier instant, and changes nothing else"
        "What a request has saved is undone by another one that only prolongs the session."),
    case!(parallel Conc c45_a_touch_at_any_step_of_an_end_brings_nothing_back [Server]
        "No call stores anything for such a token except `create`"
        "A logout is undone by the next request that prolongs the session."),
    case!(parallel Conc c46_a_create_at_any_step_of_an_end_is_before_or_after_it [Server CompareAndSwap]
        "Each call takes effect at one instant or not at all, as seen by every handle, process and host that shares the namespace."
        "A new session disappears, or one that was refused is there."),
    case!(parallel Conc c47_a_process_that_opens_and_closes_disturbs_nobody [Server CompareAndSwap]
        "Dropping a store closes what it opened and loses no acknowledged write."
        "A deployment, or a job that looks at one session, undoes what others do meanwhile."),
    case!(parallel Conc c48_of_two_revocations_at_any_step_one_counts [Server Subjects]
        "Ends one session if it belongs to the subject. Returns whether it was live."
        "The number of sessions that were ended is wrong, or one of them is left."),
    case!(parallel Conc c49_a_revocation_at_any_step_of_a_write_ends_the_session [Server CompareAndSwap Subjects]
        "Ends one session if it belongs to the subject."
        "The thief's session survives its end because it was used in that moment."),
    case!(parallel Conc c50_revoke_all_at_any_step_of_a_write_ends_what_was_there [Server CompareAndSwap Subjects]
        "Ends every session of the subject that was stored before the call, but the one under"
        "`Log out everywhere` leaves a session that was renewed in that moment."),
    case!(parallel Conc c51_a_revocation_at_any_step_of_a_sign_in_goes_by_the_subject [Server CompareAndSwap Subjects]
        "a record is found under the subject of its last write from the `Ok` of that write on"
        "Somebody else's session is ended, or one is left that nobody can find."),
    case!(parallel Conc c52_the_session_that_is_excepted_survives_its_renewal [Server CompareAndSwap Subjects]
        "Ends every session of the subject that was stored before the call, but the one under `except`."
        "Who ends all other sessions loses the own one, or keeps one of the others."),
    case!(parallel Conc c53_a_sweep_at_any_step_of_a_create_spares_the_new_record [Server ExplicitSweep]
        "Safe beside every other call"
        "The cleaner ends a session that has just begun."),
    case!(parallel Conc c54_a_sweep_at_any_step_of_a_prolongation_spares_the_record [Server CompareAndSwap ExplicitSweep]
        "a record whose expiry is extended in time survives"
        "The user is active, and logged out by the cleaner."),
    case!(parallel Conc c55_a_sweep_at_any_step_of_a_revocation_leaves_both_right [Server ExplicitSweep Subjects]
        "Removes at most `limit` expired records, and what is left over from interrupted writes, and returns how many records it removed."
        "Ended sessions are counted twice, or a list shows what the cleaner has removed."),
    case!(parallel Conc c56_a_list_at_any_step_of_a_renewal_shows_the_session_once [Server CompareAndSwap Subjects]
        "A session that lives during a whole listing appears in it exactly once, whatever comes and goes meanwhile."
        "A session in use is missing from the list, and its owner does not end it."),
    case!(parallel Conc c57_a_list_at_any_step_of_an_end_shows_the_others [Server CompareAndSwap Subjects]
        "A session that lives during a whole listing appears in it exactly once, whatever comes and goes meanwhile."
        "A session is missing from the list because another one has ended."),
];

async fn c40_of_two_creates_at_any_step_one_succeeds(cx: &Context) -> Outcome {
    let races = [
        Race {
            start: &[Absent],
            calls: &[(Create, 0), (Create, 0)],
        },
        Race {
            start: &[Expired],
            calls: &[(Create, 0), (Create, 0)],
        },
        Race {
            start: &[Absent],
            calls: &[(Create, 0), (Create, 0), (Load, 0)],
        },
        Race {
            start: &[Absent],
            calls: &[(Create, 0), (Delete, 0), (Create, 0)],
        },
    ];
    run(cx, &races).await
}

async fn c41_of_two_updates_at_any_step_one_succeeds(cx: &Context) -> Outcome {
    let races = [
        Race {
            start: &[Live],
            calls: &[(Update, 0), (Update, 0)],
        },
        Race {
            start: &[Live],
            calls: &[(Update, 0), (Update, 0), (Load, 0)],
        },
        Race {
            start: &[Live],
            calls: &[(Update, 0), (GiveToBob, 0), (Update, 0)],
        },
    ];
    run(cx, &races).await
}

async fn c42_an_update_and_a_delete_at_any_step_are_one_after_the_other(cx: &Context) -> Outcome {
    let races = [
        Race {
            start: &[Live],
            calls: &[(Update, 0), (Delete, 0)],
        },
        Race {
            start: &[Live],
            calls: &[(Update, 0), (DeleteAt, 0)],
        },
        Race {
            start: &[Live],
            calls: &[(Update, 0), (DeleteAt, 0), (Load, 0)],
        },
        Race {
            start: &[Live],
            calls: &[(Update, 0), (Delete, 0), (Create, 0)],
        },
    ];
    run(cx, &races).await
}

async fn c43_of_two_deletes_at_any_step_one_is_true(cx: &Context) -> Outcome {
    let races = [
        Race {
            start: &[Live],
            calls: &[(Delete, 0), (Delete, 0)],
        },
        Race {
            start: &[Live],
            calls: &[(Delete, 0), (DeleteAt, 0)],
        },
        Race {
            start: &[Live],
            calls: &[(DeleteAt, 0), (DeleteAt, 0), (Load, 0)],
        },
    ];
    run(cx, &races).await
}

async fn c44_a_touch_at_any_step_of_a_write_keeps_it(cx: &Context) -> Outcome {
    let races = [
        Race {
            start: &[Live],
            calls: &[(Touch, 0), (Update, 0)],
        },
        Race {
            start: &[Live],
            calls: &[(Touch, 0), (GiveToBob, 0)],
        },
        Race {
            start: &[Live],
            calls: &[(Touch, 0), (Update, 0), (Load, 0)],
        },
        Race {
            start: &[Live],
            calls: &[(Touch, 0), (Touch, 0), (Load, 0)],
        },
    ];
    run(cx, &races).await
}

async fn c45_a_touch_at_any_step_of_an_end_brings_nothing_back(cx: &Context) -> Outcome {
    let races = [
        Race {
            start: &[Live],
            calls: &[(Touch, 0), (Delete, 0)],
        },
        Race {
            start: &[Live],
            calls: &[(Touch, 0), (DeleteAt, 0)],
        },
        Race {
            start: &[Live],
            calls: &[(Touch, 0), (Delete, 0), (Create, 0)],
        },
    ];
    run(cx, &races).await
}

async fn c46_a_create_at_any_step_of_an_end_is_before_or_after_it(cx: &Context) -> Outcome {
    let races = [
        Race {
            start: &[Live],
            calls: &[(Create, 0), (Delete, 0)],
        },
        Race {
            start: &[Live],
            calls: &[(Create, 0), (DeleteAt, 0), (Load, 0)],
        },
        Race {
            start: &[Live],
            calls: &[(Create, 0), (Delete, 0), (Update, 0)],
        },
        Race {
            start: &[Expired],
            calls: &[(Create, 0), (Delete, 0), (Touch, 0)],
        },
    ];
    run(cx, &races).await
}

async fn c47_a_process_that_opens_and_closes_disturbs_nobody(cx: &Context) -> Outcome {
    let races = [
        Race {
            start: &[Live],
            calls: &[(Visit, 0), (Update, 0)],
        },
        Race {
            start: &[Live],
            calls: &[(Visit, 0), (Delete, 0)],
        },
        Race {
            start: &[Absent],
            calls: &[(Visit, 0), (Create, 0)],
        },
        Race {
            start: &[Live],
            calls: &[(Visit, 0), (Update, 0), (Touch, 0)],
        },
    ];
    run(cx, &races).await
}

async fn c48_of_two_revocations_at_any_step_one_counts(cx: &Context) -> Outcome {
    let races = [
        Race {
            start: &[Live],
            calls: &[(Revoke, 0), (Revoke, 0)],
        },
        Race {
            start: &[Live, Live, Bobs],
            calls: &[(RevokeAll, 0), (RevokeAll, 0)],
        },
        Race {
            start: &[Live, Live],
            calls: &[(RevokeAll, 0), (Revoke, 1)],
        },
        Race {
            start: &[Live],
            calls: &[(Revoke, 0), (Delete, 0)],
        },
        Race {
            start: &[Live],
            calls: &[(RevokeAll, 0), (DeleteAt, 0)],
        },
    ];
    run(cx, &races).await
}

async fn c49_a_revocation_at_any_step_of_a_write_ends_the_session(cx: &Context) -> Outcome {
    let races = [
        Race {
            start: &[Live],
            calls: &[(Revoke, 0), (Update, 0)],
        },
        Race {
            start: &[Live],
            calls: &[(Revoke, 0), (Touch, 0)],
        },
        Race {
            start: &[Absent],
            calls: &[(Revoke, 0), (Create, 0)],
        },
        Race {
            start: &[Expired],
            calls: &[(Revoke, 0), (Create, 0)],
        },
        Race {
            start: &[Live],
            calls: &[(Revoke, 0), (Update, 0), (Touch, 0)],
        },
    ];
    run(cx, &races).await
}

async fn c50_revoke_all_at_any_step_of_a_write_ends_what_was_there(cx: &Context) -> Outcome {
    let races = [
        Race {
            start: &[Live, Live],
            calls: &[(RevokeAll, 0), (Update, 0)],
        },
        Race {
            start: &[Live, Live],
            calls: &[(RevokeAll, 0), (Touch, 0)],
        },
        Race {
            start: &[Live, Absent],
            calls: &[(RevokeAll, 0), (Create, 1)],
        },
        Race {
            start: &[Live, Expired],
            calls: &[(RevokeAll, 0), (Create, 1)],
        },
        Race {
            start: &[Live, Live],
            calls: &[(RevokeAll, 0), (Update, 0), (Touch, 1)],
        },
    ];
    run(cx, &races).await
}

async fn c51_a_revocation_at_any_step_of_a_sign_in_goes_by_the_subject(cx: &Context) -> Outcome {
    let races = [
        Race {
            start: &[Live],
            calls: &[(Revoke, 0), (GiveToBob, 0)],
        },
        Race {
            start: &[Live, Live],
            calls: &[(RevokeAll, 0), (GiveToBob, 0)],
        },
        Race {
            start: &[Bobs],
            calls: &[(Revoke, 0), (GiveToAlice, 0)],
        },
        Race {
            start: &[Bobs, Live],
            calls: &[(RevokeAll, 0), (GiveToAlice, 0)],
        },
        Race {
            start: &[Live],
            calls: &[(RevokeAll, 0), (GiveToNobody, 0)],
        },
        Race {
            start: &[Live],
            calls: &[(List, 0), (GiveToBob, 0), (RevokeAll, 0)],
        },
    ];
    run(cx, &races).await
}

async fn c52_the_session_that_is_excepted_survives_its_renewal(cx: &Context) -> Outcome {
    let races = [
        Race {
            start: &[Live, Live],
            calls: &[(RevokeOthers, 0), (Update, 0)],
        },
        Race {
            start: &[Live, Live],
            calls: &[(RevokeOthers, 0), (Update, 1)],
        },
        Race {
            start: &[Live, Live],
            calls: &[(RevokeOthers, 0), (RevokeOthers, 1)],
        },
        Race {
            start: &[Live, Live],
            calls: &[(RevokeOthers, 0), (Touch, 0), (Touch, 1)],
        },
    ];
    run(cx, &races).await
}

async fn c53_a_sweep_at_any_step_of_a_create_spares_the_new_record(cx: &Context) -> Outcome {
    let races = [
        Race {
            start: &[Expired],
            calls: &[(Sweep, 0), (Create, 0)],
        },
        Race {
            start: &[Expired, Expired],
            calls: &[(Sweep, 0), (Sweep, 0)],
        },
        Race {
            start: &[Expired, Expired],
            calls: &[(Sweep, 0), (Create, 0), (Delete, 1)],
        },
        Race {
            start: &[Expired, Live],
            calls: &[(Sweep, 0), (Update, 1)],
        },
    ];
    run(cx, &races).await
}

async fn c54_a_sweep_at_any_step_of_a_prolongation_spares_the_record(cx: &Context) -> Outcome {
    let races = [
        Race {
            start: &[Soon],
            calls: &[(LateSweep, 0), (Touch, 0)],
        },
        Race {
            start: &[Soon],
            calls: &[(LateSweep, 0), (Update, 0)],
        },
        Race {
            start: &[Soon, Soon],
            calls: &[(LateSweep, 0), (Touch, 0), (Load, 1)],
        },
    ];
    run(cx, &races).await
}

async fn c55_a_sweep_at_any_step_of_a_revocation_leaves_both_right(cx: &Context) -> Outcome {
    let races = [
        Race {
            start: &[Expired, Live],
            calls: &[(Sweep, 0), (List, 0)],
        },
        Race {
            start: &[Expired, Live],
            calls: &[(Sweep, 0), (RevokeAll, 0)],
        },
        Race {
            start: &[Expired, Live],
            calls: &[(Sweep, 0), (Revoke, 0)],
        },
        Race {
            start: &[Expired, Live],
            calls: &[(Sweep, 0), (RevokeAll, 0), (Create, 0)],
        },
    ];
    run(cx, &races).await
}

async fn c56_a_list_at_any_step_of_a_renewal_shows_the_session_once(cx: &Context) -> Outcome {
    let races = [
        Race {
            start: &[Live, Live],
            calls: &[(List, 0), (Update, 0)],
        },
        Race {
            start: &[Live, Live],
            calls: &[(List, 0), (Touch, 0)],
        },
        Race {
            start: &[Live, Live],
            calls: &[(List, 0), (Update, 0), (Update, 1)],
        },
    ];
    run(cx, &races).await
}

async fn c57_a_list_at_any_step_of_an_end_shows_the_others(cx: &Context) -> Outcome {
    let races = [
        Race {
            start: &[Live, Live, Live],
            calls: &[(List, 0), (Delete, 0)],
        },
        Race {
            start: &[Live, Live, Live],
            calls: &[(List, 0), (Revoke, 1)],
        },
        Race {
            start: &[Live, Live, Live],
            calls: &[(List, 0), (GiveToBob, 2)],
        },
        Race {
            start: &[Live, Absent, Live],
            calls: &[(List, 0), (Create, 1), (Delete, 0)],
        },
    ];
    run(cx, &races).await
}
