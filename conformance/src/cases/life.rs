use futures_util::future::join_all;
use sessionkit::{Custody, Durability, ErrorKind, Label, Record};

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
        "Replaces a live record whose revision is `expected`, the expiry included, in one step"
        "A value that the application removed, such as a role, is still there after the save."),
    case!(Life l04_load_after_delete_is_none_on_every_handle [Server]
        "After `Ok` no handle, cache or host returns the record."
        "A user who has logged out is still logged in on another host."),
    case!(Life l05_update_touch_and_rotate_of_an_unknown_token_are_missing [Server]
        "`load` is `Ok(None)`, `delete` is `Ok(())`, and everything else is [`Missing`](crate::ErrorKind::Missing)."
        "An attacker chooses the id of a session (fiber, CVE-2024-38513)."),
    case!(Life l06_create_over_a_live_record_is_exists [Server]
        "[`Exists`](crate::ErrorKind::Exists) when a live record is stored under the token, which stays as it is"
        "Two users share one session after a collision."),
    case!(Life l07_rotate_moves_the_record [Server]
        "After `Ok` the old token is dead and the new one holds `record`."
        "The id that an attacker planted before the login works after it (session fixation)."),
    case!(Life l08_an_empty_record_is_a_record []
        "larger data are [`TooLarge`](crate::ErrorKind::TooLarge) before anything is written"
        "An empty session and no session are mixed up, so that a logout leaves something behind."),
    case!(Life l09_every_handle_sees_what_another_one_wrote []
        "Each call takes effect at one instant or not at all, as seen by every handle, process and host that shares the namespace."
        "The next request goes to another process, and the user is logged out."),
    case!(Life l10_opening_a_namespace_again_changes_nothing []
        "Dropping a store closes what it opened and loses no acknowledged write."
        "Two processes that start together fail, or a deployment ends every session."),
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
    let token = cx.ok(
        "update",
        store.update(&token, first.revision, &second).await,
    )?;
    cx.holds("after update", &store, &token, &second).await?;
    let third = cx.changed(&second, "");
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
    cx.ok("delete", store.delete(&token).await)?;
    cx.absent("after delete", &store, &token).await?;
    cx.settle().await;
    cx.absent("after delete, on another handle", &other, &token)
        .await?;
    for _ in 0..10 {
        cx.ok("delete again", store.delete(&token).await)?;
    }
    cx.ok(
        "delete of an unknown token",
        other.delete(&cx.token()).await,
    )?;
    Ok(())
}

async fn l05_update_touch_and_rotate_of_an_unknown_token_are_missing(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let (token, to, record) = (cx.token(), cx.token(), cx.record("hello"));
    let missing = ErrorKind::Missing;
    let updated = store.update(&token, record.revision, &record).await;
    cx.err("update of an unknown token", missing, updated)?;
    let touched = store.touch(&token, record.expires_at).await;
    cx.err("touch of an unknown token", missing, touched)?;
    let rotated = store
        .rotate(&token, to.clone(), record.revision, &record)
        .await;
    cx.err("rotate of an unknown token", missing, rotated)?;
    cx.absent("after they failed", &store, &token).await?;
    cx.absent("of the target of the rotation", &store, &to)
        .await
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

async fn l07_rotate_moves_the_record(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let (old, new, taken) = (cx.token(), cx.token(), cx.token());
    let (first, other) = (cx.record("first"), cx.record("other"));
    store.create(old.clone(), &first).await?;
    store.create(taken.clone(), &other).await?;

    let second = cx.changed(&first, "second");
    let rotated = store
        .rotate(&old, taken.clone(), first.revision, &second)
        .await;
    cx.err("rotate to a live token", ErrorKind::Exists, rotated)?;
    cx.holds("of the source after that", &store, &old, &first)
        .await?;
    cx.holds("of the target after that", &store, &taken, &other)
        .await?;

    let rotated = store
        .rotate(&old, new.clone(), cx.revision(), &second)
        .await;
    cx.err("rotate with another revision", ErrorKind::Conflict, rotated)?;
    cx.holds("of the source after that", &store, &old, &first)
        .await?;

    let rotated = store
        .rotate(&old, new.clone(), first.revision, &second)
        .await;
    let token = cx.ok("rotate", rotated)?;
    cx.check(
        token == new,
        "rotate returns the new token",
        "another token",
    )?;
    cx.absent("of the old token after rotate", &store, &old)
        .await?;
    cx.holds("of the new token after rotate", &store, &new, &second)
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
        cx.ok("delete", store.delete(&token).await)?;
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
    let rotated = store
        .rotate(&token, cx.token(), third.revision, &fourth)
        .await;
    let token = cx.ok("rotate", rotated)?;
    cx.holds("on another handle after rotate", &other, &token, &fourth)
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
