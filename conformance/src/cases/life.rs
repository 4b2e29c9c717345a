use std::time::Duration;

use futures_util::future::join_all;
use sessionkit::{Custody, Durability, ErrorKind, Label, Record, Revision, SessionStore, Token};

use super::case;
use crate::{Case, Context, Outcome};

pub(super) const CASES: &[Case] = &[
    case!(Life l01_create_then_load_is_equal []
        "A record comes back as it was given, byte for byte"
        "Nothing else works when a session cannot be read back."),
    case!(Life l02_load_of_an_unknown_token_is_none_and_stores_nothing []
        "No call stores anything for such a token except `create`"
        "A visitor who sends made-up cookies fills the store (Django, CVE-2015-5143)."),
    case!(Life l03_update_replaces_the_whole_record []
        "Replaces a live record whose revision is `expected` in one step, all of its fields"
        "A value that the application removed, such as a role, is still there after the save."),
    case!(Life l04_load_after_delete_is_none_on_every_handle [Server]
        "After `Ok` no handle, cache or host returns the record."
        "A user who has logged out is still logged in on another host."),
    case!(Life l05_update_and_touch_of_an_unknown_token_are_missing [Server]
        "`load` is `Ok(None)`, `delete` is `Ok(false)`, and everything else is [`Missing`](crate::ErrorKind::Missing)."
        "An attacker chooses the id of a session (fiber, CVE-2024-38513)."),
    case!(Life l06_create_over_a_live_record_is_exists [Server]
        "[`Exists`](crate::ErrorKind::Exists) when a live record is stored under the token, which stays as it is"
        "Two users share one session after a collision."),
    case!(Life l08_an_empty_record_is_a_record []
        "larger data are [`TooLarge`](crate::ErrorKind::TooLarge) before anything is written"
        "An empty session and no session are mixed up, so that a logout leaves something behind."),
    case!(Life l09_every_handle_sees_what_another_one_wrote []
        "Each call takes effect at one instant or not at all, as seen by every handle, process and host that shares the namespace."
        "The next request goes to another process, and the user is logged out."),
    case!(Life l10_opening_a_namespace_again_changes_nothing []
        "Dropping a store closes what it opened and loses no acknowledged write."
        "Two processes that start together fail, or a deployment ends every session."),
    case!(Life l11_delete_says_whether_it_ended_a_live_record [Server]
        "Returns whether this call ended a live record"
        "A logout that ended nothing is reported as done, or one that worked as one that came too late."),
    case!(Life l12_delete_at_a_revision_ends_no_other [Server CompareAndSwap]
        "With `Some`, a live record goes only if that is its revision, in one step."
        "A sign-out ends a session that somebody else has taken over meanwhile, or misses one that was renewed."),
    case!(Life l13_ping_of_a_backend_that_works_is_ok []
        "Whether the backend answers now and would take a write"
        "A health check takes a host out of service that works."),
    case!(Life l40_a_deleted_record_leaves_no_copy [Server]
        "Removes the record of a token. After `Ok` no handle, cache or host returns the record."
        "What a user has deleted stays in the database under a second name, or comes back from there."),
];

async fn l01_create_then_load_is_equal(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let mut record = cx.record("hello");
    record.subject = Some(cx.subject("alice"));
    record.label = Label::new("Firefox on Linux")?;
    let given = cx.token();
    let token = cx.ok("create", store.create(given.clone(), &record).await)?;
    if cx.capabilities().custody == Custody::Server {
        cx.check(
            token == given,
            "create returns the token it was given",
            "another token",
        )?;
    }
    cx.holds("after create", &store, &token, &record).await?;
    cx.holds("a second time", &store, &token, &record).await
}

async fn l02_load_of_an_unknown_token_is_none_and_stores_nothing(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let before = cx.raw_dump().await;
    for _ in 0..10 {
        cx.absent("of an unknown token", &store, &cx.token())
            .await?;
    }
    if let Ok(before) = before {
        let after = cx.raw_dump().await?;
        let expected = format!("{} stored entries", before.len());
        cx.check(after == before, expected, format_args!("{}", after.len()))?;
    }
    Ok(())
}

async fn l03_update_replaces_the_whole_record(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let mut first = cx.record("a much longer first version, with a role");
    first.subject = Some(cx.subject("alice"));
    first.label = Label::new("old")?;
    let token = store.create(cx.token(), &first).await?;
    let mut second = cx.record("second");
    second.expires_at = second.expires_at + cx.moment();
    // A sign-in begins the lifetime anew.
    second.created_at = second.created_at + Duration::from_secs(1);
    second.subject = Some(cx.subject("bob"));
    second.label = Label::new("new")?;
    let token = cx.ok(
        "update",
        store.update(&token, first.revision, &second).await,
    )?;
    cx.holds("after update", &store, &token, &second).await?;
    let third = Record {
        created_at: first.created_at,
        subject: None,
        label: Label::default(),
        ..cx.changed(&second, "")
    };
    let token = cx.ok(
        "update",
        store.update(&token, second.revision, &third).await,
    )?;
    cx.holds("after a second update", &store, &token, &third)
        .await
}

async fn l04_load_after_delete_is_none_on_every_handle(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let token = store.create(cx.token(), &cx.record("hello")).await?;
    // Whatever caches records has it now.
    other.load(&token).await?;
    cx.ok("delete", store.delete(&token, None).await)?;
    cx.absent("after delete", &store, &token).await?;
    cx.settle().await;
    cx.absent("after delete, on another handle", &other, &token)
        .await?;
    for _ in 0..10 {
        cx.ok("delete again", store.delete(&token, None).await)?;
    }
    let deleted = other.delete(&cx.token(), None).await;
    cx.ok("delete of an unknown token", deleted)?;
    Ok(())
}

async fn l05_update_and_touch_of_an_unknown_token_are_missing(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let (token, record) = (cx.token(), cx.record("hello"));
    let missing = ErrorKind::Missing;
    let updated = store.update(&token, record.revision, &record).await;
    cx.err("update of an unknown token", missing, updated)?;
    let touched = store.touch(&token, record.expires_at).await;
    cx.err("touch of an unknown token", missing, touched)?;
    let renewed = store.renew(&token, record.revision, &record).await;
    cx.err("renew of an unknown token", missing, renewed)?;
    cx.absent("after they failed", &store, &token).await
}

async fn l06_create_over_a_live_record_is_exists(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let (token, first) = (cx.token(), cx.record("first"));
    store.create(token.clone(), &first).await?;
    for handle in [&store, &other] {
        let created = handle.create(token.clone(), &cx.record("second")).await;
        cx.err("create over a live record", ErrorKind::Exists, created)?;
    }
    cx.holds("after the second create", &store, &token, &first)
        .await
}

async fn l08_an_empty_record_is_a_record(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let empty = cx.record("");
    let token = cx.ok(
        "create of an empty record",
        store.create(cx.token(), &empty).await,
    )?;
    cx.holds("of an empty record", &store, &token, &empty)
        .await?;
    let full = cx.changed(&empty, "full");
    let token = cx.ok("update", store.update(&token, empty.revision, &full).await)?;
    let again = cx.changed(&full, "");
    let token = cx.ok(
        "update to empty",
        store.update(&token, full.revision, &again).await,
    )?;
    cx.holds("of a record that was emptied", &store, &token, &again)
        .await?;
    if cx.capabilities().custody == Custody::Server {
        cx.ok("delete", store.delete(&token, None).await)?;
        cx.absent("after delete", &store, &token).await?;
    }
    Ok(())
}

async fn l09_every_handle_sees_what_another_one_wrote(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let first = cx.record("first");
    let token = store.create(cx.token(), &first).await?;
    cx.holds("on another handle after create", &other, &token, &first)
        .await?;
    let second = cx.changed(&first, "second");
    let token = cx.ok(
        "update",
        other.update(&token, first.revision, &second).await,
    )?;
    cx.settle().await;
    cx.holds("on the first handle after update", &store, &token, &second)
        .await?;
    let later = second.expires_at + cx.moment();
    let token = cx.ok("touch", store.touch(&token, later).await)?;
    cx.settle().await;
    let third = Record {
        expires_at: later,
        ..second
    };
    cx.holds("on another handle after touch", &other, &token, &third)
        .await?;
    let fourth = cx.changed(&third, "fourth");
    let renewed = store.renew(&token, third.revision, &fourth).await;
    let token = cx.ok("renew", renewed)?;
    cx.settle().await;
    cx.holds("on another handle after renew", &other, &token, &fourth)
        .await?;
    if cx.capabilities().durability > Durability::Process {
        drop((store, other));
        let reopened = cx.open().await?;
        cx.holds("after all handles were dropped", &reopened, &token, &fourth)
            .await?;
    }
    Ok(())
}

async fn l10_opening_a_namespace_again_changes_nothing(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let record = cx.record("hello");
    let token = store.create(cx.token(), &record).await?;
    let fresh = format!("{}_fresh", cx.namespace());
    for namespace in [cx.namespace(), &fresh] {
        let opened = join_all((0..8).map(|_| cx.try_open_in(namespace))).await;
        for handle in opened {
            let handle = cx.ok("one of eight opens at the same time", handle)?;
            cx.absent("of an unknown token", &handle, &cx.token())
                .await?;
        }
    }
    cx.holds(
        "after the namespace was opened again",
        &store,
        &token,
        &record,
    )
    .await
}

/// Deletes, and compares the answer.
async fn deletes(
    cx: &Context,
    what: &str,
    store: &dyn SessionStore,
    (token, expected): (&Token, Option<Revision>),
    ended: bool,
) -> Outcome {
    let answer = cx.ok(what, store.delete(token, expected).await)?;
    cx.equal(
        &format!("whether {what} ended a record is"),
        &answer,
        &ended,
    )
}

async fn l11_delete_says_whether_it_ended_a_live_record(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    for at_revision in [false, true] {
        let expected = |record: &Record| at_revision.then_some(record.revision);
        let record = cx.record("hello");
        let token = store.create(cx.token(), &record).await?;
        let call = (&token, expected(&record));
        deletes(cx, "delete", &other, call, true).await?;
        deletes(cx, "a second delete", &other, call, false).await?;
        deletes(cx, "delete on another handle", &store, call, false).await?;
        cx.absent("after delete", &store, &token).await?;

        let unknown = cx.token();
        let call = (&unknown, expected(&record));
        deletes(cx, "delete of an unknown token", &store, call, false).await?;
        let stale = Record {
            expires_at: cx.now() - cx.moment(),
            ..cx.record("stale")
        };
        let token = store.create(cx.token(), &stale).await?;
        let call = (&token, expected(&stale));
        deletes(cx, "delete of an expired record", &store, call, false).await?;
        let created = store.create(token.clone(), &record).await;
        cx.ok("create after delete", created)?;
        deletes(
            cx,
            "delete of a record that was created anew",
            &store,
            (&token, expected(&record)),
            true,
        )
        .await?;
    }
    Ok(())
}

async fn l12_delete_at_a_revision_ends_no_other(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let first = cx.record("first");
    let token = store.create(cx.token(), &first).await?;
    let bits = first.revision.to_bits();
    let near = [1, 1 << 31, 1 << 32, 1 << 63, !0].map(|other| Revision::from_bits(bits ^ other));
    for wrong in near.into_iter().chain([cx.revision()]) {
        let deleted = store.delete(&token, Some(wrong)).await;
        let conflict = ErrorKind::Conflict;
        cx.err("delete at another revision", conflict, deleted)?;
        cx.holds("after delete at another revision", &store, &token, &first)
            .await?;
    }
    let second = cx.changed(&first, "second");
    let token = store.update(&token, first.revision, &second).await?;
    let deleted = other.delete(&token, Some(first.revision)).await;
    cx.err("delete at a former revision", ErrorKind::Conflict, deleted)?;
    cx.holds("after delete at a former revision", &store, &token, &second)
        .await?;

    let third = Record {
        expires_at: second.expires_at + cx.moment(),
        ..second
    };
    let token = store.touch(&token, third.expires_at).await?;
    let call = (&token, Some(third.revision));
    deletes(
        cx,
        "delete at the revision, after a touch,",
        &other,
        call,
        true,
    )
    .await?;
    cx.settle().await;
    cx.absent("after delete at the revision", &store, &token)
        .await?;
    deletes(cx, "a second delete at the revision", &store, call, false).await
}

async fn l13_ping_of_a_backend_that_works_is_ok(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    for handle in [&store, &other, &store] {
        cx.ok("ping", handle.ping().await)?;
    }
    let record = cx.record("hello");
    let token = store.create(cx.token(), &record).await?;
    cx.ok("ping after create", store.ping().await)?;
    cx.holds("after ping", &store, &token, &record).await
}

async fn l40_a_deleted_record_leaves_no_copy(cx: &Context) -> Outcome {
    let handles = [cx.open().await?, cx.open().await?, cx.open().await?];
    let empty = cx.stored_names().await;
    let token = cx.token();
    // Two handles write in turn, and each of them deletes once.
    for round in 0..4 {
        let (one, two) = (&handles[round % 2], &handles[(round + 1) % 2]);
        let mut first = cx.record("first");
        first.subject = Some(cx.subject("alice"));
        let created = one.create(token.clone(), &first).await;
        cx.ok("create after delete", created)?;
        let second = cx.changed(&first, "the second version");
        let updated = two.update(&token, first.revision, &second).await;
        cx.ok("update on another handle", updated)?;
        let third = cx.changed(&second, "third");
        let renewed = one.renew(&token, second.revision, &third).await;
        cx.ok("renew on the first handle", renewed)?;
        let touched = two.touch(&token, third.expires_at + cx.moment()).await;
        cx.ok("touch on another handle", touched)?;
        let key = token.key();
        let ended = match (round, one.subjects()) {
            (2, Some(index)) => index.revoke(&cx.subject("alice"), &key).await,
            (3, Some(index)) => {
                let count = index.revoke_all(&cx.subject("alice"), None).await;
                count.map(|count| count == 1)
            }
            (1, _) => one.delete(&token, Some(third.revision)).await,
            _ => one.delete(&token, None).await,
        };
        let ended = cx.ok("the end of the record", ended)?;
        cx.check(
            ended,
            "a call that ended one record",
            "it says that it did not",
        )?;
        cx.settle().await;
        for handle in &handles {
            cx.absent("after two handles wrote and one deleted", handle, &token)
                .await?;
        }
        if let Some(index) = one.subjects() {
            // What an index keeps of a record that is gone may stay until it is read.
            let listed = index.list(&cx.subject("alice"), None, 10).await;
            let listed = cx.ok("list", listed)?.len();
            cx.equal("the sessions of the subject are", &listed, &0)?;
        }
        if let (Some(before), Some(after)) = (&empty, cx.stored_names().await) {
            let left: Vec<_> = after
                .difference(before)
                .map(|name| name.escape_ascii().to_string())
                .collect();
            cx.check(
                left.is_empty(),
                "nothing in the backend of a record that was deleted",
                format_args!(
                    "{} entries, the first is {}",
                    left.len(),
                    left.first().map_or("", String::as_str)
                ),
            )?;
        }
    }
    Ok(())
}
