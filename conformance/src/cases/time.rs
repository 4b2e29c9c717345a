use std::time::Duration;

use sessionkit::{ErrorKind, Key, Keyring, ManualClock, Record, SessionStore, Sweep, Timestamp};

use super::case;
use crate::{
    Case, Context, Failure, Fault, Outcome,
    browser::{Browser, manager},
};

pub(super) const CASES: &[Case] = &[
    case!(Time t01_a_record_is_gone_from_its_expiry_on []
        "until it is deleted or reaches its [`expires_at`](Record::expires_at)"
        "A session that nobody swept away works after its time, or reading it keeps it alive."),
    case!(Time t02_a_record_is_there_until_its_expiry []
        "By how much a record may outlive or fall short of its expiry."
        "Users are logged out early, by up to a second where expiries are cut to seconds."),
    case!(Time t03_a_record_that_has_expired_already_is_accepted_and_not_visible []
        "A record whose expiry has passed is accepted and is not visible."
        "An expiry in the past becomes `never` (or an error of the backend, as with Redis `EX 0`)."),
    case!(Time t04_an_update_keeps_an_expiry_that_it_does_not_change []
        "Replaces a live record whose revision is `expected` in one step, all of its fields"
        "A plain write drops the time to live, and the session lives for ever."),
    case!(Time t05_a_new_expiry_counts_whether_later_or_earlier []
        "Sets the expiry of a live record, to a later or an earlier instant"
        "A session that was shortened lives on, or one that was prolonged ends."),
    case!(Time t06_touch_prolongs_what_lives_and_revives_nothing []
        "Sets the expiry of a live record, to a later or an earlier instant, and changes nothing else"
        "An expired session comes back to life, or a touch sets another lifetime than asked for."),
    case!(Time t07_no_touch_passes_the_absolute_lifetime []
        "Sets how long a session lives at most, however much it is used"
        "A stolen session that is used often lives for ever (ASVS 7.3.2)."),
    case!(Time t08_a_lifetime_of_a_quarter_second_is_neither_an_error_nor_endless []
        "By how much a record may outlive or fall short of its expiry."
        "A short lifetime is rounded to zero, and zero means `for ever`."),
    case!(Time t09_far_expiries_survive []
        "in whole milliseconds since 1970-01-01T00:00:00Z, from there to the end of the year 9999."
        "Sessions end in 1970 or 2038 because an expiry did not fit (RUSTSEC-2017-0005)."),
    case!(Time t11_time_zones_do_not_matter [Server]
        "The time zone of a process, a database or its sessions never matters."
        "A server in another zone ends every session, or none."),
    case!(Time t12_one_clock_decides_also_when_it_steps []
        "by one clock: the application's, handed to the store when it is opened, or the server's"
        "A sweep that goes by another clock than a load removes sessions that are in use."),
    case!(Time t13_an_expired_record_that_was_not_swept_is_absent [Server]
        "No call stores anything for such a token except `create`, and `create` sees nothing of a record that was there before."
        "An expired session comes back, or its data turn up in somebody's new session."),
    case!(Time t40_instants_from_2286_to_9999_are_kept_and_compared []
        "in whole milliseconds since 1970-01-01T00:00:00Z, from there to the end of the year 9999."
        "An instant with one digit more is cut, or comes before all others as text does: sessions end at once."),
    case!(Time t41_a_clock_that_is_set_back_brings_nothing_back_and_ends_nothing [Server ApplicationTime]
        "by one clock: the application's, handed to the store when it is opened, or the server's"
        "When a host corrects its clock, users are logged out, or sessions come back that were ended."),
];

async fn t01_a_record_is_gone_from_its_expiry_on(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let record = cx.record_for("hello", cx.moment());
    let token = store.create(cx.token(), &record).await?;
    cx.pass(cx.moment() / 2).await;
    for handle in [&store, &other] {
        handle.load(&token).await?;
    }
    cx.pass_until(record.expires_at + cx.margin()).await;
    cx.absent("after the expiry", &store, &token).await?;
    cx.absent("after the expiry, on another handle", &other, &token)
        .await
}

async fn t02_a_record_is_there_until_its_expiry(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let record = cx.record_for("hello", cx.moment());
    let token = store.create(cx.token(), &record).await?;
    still_there(cx, &store, &token, &record).await
}

/// Looks at a record as shortly before its expiry as the granularity allows.
async fn still_there(
    cx: &Context,
    store: &dyn SessionStore,
    token: &sessionkit::Token,
    record: &Record,
) -> Outcome {
    let granularity = cx.capabilities().expiry_granularity;
    let last = record.expires_at - granularity;
    cx.pass_until(record.expires_at - cx.margin() - Duration::from_millis(1))
        .await;
    let seen = cx
        .holds("shortly before the expiry", store, token, record)
        .await;
    if seen.is_err() && cx.now() >= last {
        return Err(Failure::inconclusive(
            "the machine was too slow to look in time",
        ));
    }
    seen
}

async fn t03_a_record_that_has_expired_already_is_accepted_and_not_visible(
    cx: &Context,
) -> Outcome {
    let store = cx.open().await?;
    let (now, hour) = (cx.now(), Duration::from_secs(3600));
    // No instant within the margin, where a granularity would leave it visible.
    let past = [
        now - hour - cx.margin(),
        now - cx.margin() - cx.margin(),
        Timestamp::MIN,
    ];
    let mut tokens = Vec::new();
    for expires_at in past {
        let record = Record {
            expires_at,
            ..cx.record("late")
        };
        let created = store.create(cx.token(), &record).await;
        let token = cx.ok("create with an expiry in the past", created)?;
        cx.absent("after that", &store, &token).await?;
        tokens.push(token);

        let live = cx.record("live");
        let token = store.create(cx.token(), &live).await?;
        let record = Record {
            expires_at,
            ..cx.changed(&live, "late")
        };
        let updated = store.update(&token, live.revision, &record).await;
        let token = cx.ok("update to an expiry in the past", updated)?;
        cx.absent("after that", &store, &token).await?;
        tokens.push(token);

        let token = store.create(cx.token(), &cx.record("live")).await?;
        let touched = store.touch(&token, expires_at).await;
        let token = cx.ok("touch to an expiry in the past", touched)?;
        cx.absent("after that", &store, &token).await?;
        tokens.push(token);
    }
    cx.pass(cx.moment()).await;
    for token in &tokens {
        cx.absent("some time later", &store, token).await?;
    }
    Ok(())
}

async fn t04_an_update_keeps_an_expiry_that_it_does_not_change(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let first = cx.record_for("first", cx.moment());
    let token = store.create(cx.token(), &first).await?;
    let second = cx.changed(&first, "second");
    let token = cx.ok(
        "update",
        store.update(&token, first.revision, &second).await,
    )?;
    cx.holds("after update", &store, &token, &second).await?;
    cx.pass_until(second.expires_at + cx.margin()).await;
    cx.absent("after the expiry", &store, &token).await
}

async fn t05_a_new_expiry_counts_whether_later_or_earlier(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let (now, short) = (cx.now(), cx.moment());
    let (soon, late) = (now + short, now + 4 * short);
    let record = |expires_at| Record {
        expires_at,
        ..cx.record("hello")
    };
    let mut expected = Vec::new();
    for (from, to) in [(soon, late), (late, soon)] {
        let first = record(from);
        let token = store.create(cx.token(), &first).await?;
        let second = Record {
            expires_at: to,
            ..cx.changed(&first, "second")
        };
        let token = cx.ok(
            "update",
            store.update(&token, first.revision, &second).await,
        )?;
        cx.holds("after update of the expiry", &store, &token, &second)
            .await?;
        expected.push(("the update", token, second));

        let first = record(from);
        let token = store.create(cx.token(), &first).await?;
        let token = cx.ok("touch", store.touch(&token, to).await)?;
        let second = Record {
            expires_at: to,
            ..first
        };
        cx.holds("after touch", &store, &token, &second).await?;
        expected.push(("the touch", token, second));
    }
    cx.pass_until(soon + cx.margin()).await;
    for (what, token, record) in &expected {
        if record.expires_at == soon {
            cx.absent(&format!("after the expiry that {what} set"), &store, token)
                .await?;
        } else {
            cx.holds(
                &format!("before the expiry that {what} set"),
                &store,
                token,
                record,
            )
            .await?;
        }
    }
    Ok(())
}

async fn t06_touch_prolongs_what_lives_and_revives_nothing(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let short = cx.record_for("short", cx.moment());
    let kept = cx.record_for("kept", cx.moment());
    let dead = store.create(cx.token(), &short).await?;
    let live = store.create(cx.token(), &kept).await?;
    let later = kept.expires_at + cx.moment();
    let live = cx.ok("touch", store.touch(&live, later).await)?;
    cx.pass_until(short.expires_at + cx.margin()).await;
    let touched = store.touch(&dead, cx.now() + cx.moment()).await;
    cx.err("touch of an expired record", ErrorKind::Missing, touched)?;
    cx.absent("after that", &store, &dead).await?;
    let kept = Record {
        expires_at: later,
        ..kept
    };
    cx.holds("of a record that was touched", &store, &live, &kept)
        .await?;
    cx.pass_until(later + cx.margin()).await;
    cx.absent("after the expiry that the touch set", &store, &live)
        .await
}

async fn t07_no_touch_passes_the_absolute_lifetime(cx: &Context) -> Outcome {
    let Some(clock) = cx.manual_clock() else {
        return Err(cx.without_clock());
    };
    let store = cx.open().await?;
    let keyring = Keyring::new([Key::generate()?])?;
    let minute = Duration::from_secs(60).max(cx.moment());
    let manager = manager(cx, &store, &keyring, |config| {
        config
            .idle_timeout(20 * minute)
            .absolute_lifetime(100 * minute)
    })?;
    let mut browser = Browser::default();
    browser
        .visit(&manager, |session| session.insert("user", "alice"))
        .await?;
    for visit in 1..=100 {
        clock.advance(minute);
        let user = browser
            .visit(&manager, |session| session.get::<String>("user"))
            .await?;
        let expected = (visit < 100).then(|| "alice".to_owned());
        cx.equal(
            &format!("at visit {visit} of 100, the user is"),
            &user,
            &expected,
        )?;
    }
    Ok(())
}

async fn t08_a_lifetime_of_a_quarter_second_is_neither_an_error_nor_endless(
    cx: &Context,
) -> Outcome {
    let store = cx.open().await?;
    for millis in [250, 1] {
        let record = cx.record_for("hello", Duration::from_millis(millis));
        let created = store.create(cx.token(), &record).await;
        let token = cx.ok(&format!("create for {millis} ms"), created)?;
        cx.pass_until(record.expires_at + cx.margin()).await;
        cx.absent(&format!("{millis} ms later"), &store, &token)
            .await?;
        let live = store.create(cx.token(), &cx.record("hello")).await?;
        let expires_at = cx.now() + Duration::from_millis(millis);
        let touched = store.touch(&live, expires_at).await;
        let token = cx.ok(&format!("touch to {millis} ms"), touched)?;
        cx.pass_until(expires_at + cx.margin()).await;
        cx.absent(&format!("{millis} ms after the touch"), &store, &token)
            .await?;
    }
    Ok(())
}

async fn t09_far_expiries_survive(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let far = [
        ("2038", Timestamp::from_millis(2_147_483_648_000)),
        ("2106", Timestamp::from_millis(4_294_967_296_001)),
        ("the year 9999", Timestamp::MAX),
        ("all time", cx.now() + Duration::MAX),
    ];
    for (what, expires_at) in far {
        let record = Record {
            expires_at,
            ..cx.record("hello")
        };
        let created = store.create(cx.token(), &record).await;
        let token = cx.ok(&format!("create until {what}"), created)?;
        cx.holds(&format!("until {what}"), &store, &token, &record)
            .await?;
        let short = cx.record_for("hello", cx.moment());
        let token = store.create(cx.token(), &short).await?;
        let token = cx.ok(
            &format!("touch until {what}"),
            store.touch(&token, expires_at).await,
        )?;
        let record = Record {
            expires_at,
            ..short
        };
        cx.holds(&format!("touched until {what}"), &store, &token, &record)
            .await?;
    }
    Ok(())
}

async fn t11_time_zones_do_not_matter(cx: &Context) -> Outcome {
    cx.fault(Fault::TimeZone).await?;
    let store = cx.open().await?;
    let hours = |hours: u64| cx.record_for("hello", Duration::from_secs(3600 * hours));
    for record in [hours(1), hours(12)] {
        let created = store.create(cx.token(), &record).await;
        let token = cx.ok("create in another time zone", created)?;
        cx.holds("in another time zone", &store, &token, &record)
            .await?;
    }
    let past = Record {
        expires_at: cx.now() - Duration::from_secs(1800),
        ..hours(1)
    };
    let stored = cx.stored_names().await;
    let token = store.create(cx.token(), &past).await?;
    cx.absent(
        "half an hour after the expiry, in another time zone",
        &store,
        &token,
    )
    .await?;
    if cx.capabilities().sweep == Sweep::Explicit {
        let swept = cx.ok("sweep", store.sweep(100).await)?;
        cx.swept(
            "the number of swept records is",
            (swept, 1),
            stored.as_ref(),
        )
        .await?;
    }
    cx.fault(Fault::None).await
}

async fn t12_one_clock_decides_also_when_it_steps(cx: &Context) -> Outcome {
    let Some(clock) = cx.manual_clock() else {
        return Err(cx.without_clock());
    };
    let store = cx.open().await?;
    let explicit = cx.capabilities().sweep == Sweep::Explicit;
    let day = Duration::from_secs(86_400);
    // Far from the time of every machine, so that no second clock agrees by chance.
    clock.advance(1000 * day);
    let record = cx.record_for("hello", cx.moment());
    let stored = cx.stored_names().await;
    let token = store.create(cx.token(), &record).await?;
    clock.set(record.expires_at - cx.margin() - Duration::from_millis(1));
    if explicit {
        cx.equal(
            "the number of swept records is",
            &store.sweep(100).await?,
            &0,
        )?;
    }
    cx.holds("shortly before the expiry", &store, &token, &record)
        .await?;
    clock.set(record.expires_at + cx.margin());
    cx.absent("after the expiry", &store, &token).await?;
    if explicit {
        let swept = cx.ok("sweep", store.sweep(100).await)?;
        cx.swept(
            "the number of swept records is",
            (swept, 1),
            stored.as_ref(),
        )
        .await?;
    }

    let live = cx.record("live");
    let token = store.create(cx.token(), &live).await?;
    for step in [300, 3600] {
        clock.set(cx.now() - Duration::from_secs(step));
        cx.holds("after the clock stepped back", &store, &token, &live)
            .await?;
        if explicit {
            cx.equal(
                "the number of swept records is",
                &store.sweep(100).await?,
                &0,
            )?;
        }
    }
    let touched = store.touch(&token, cx.now() + cx.moment()).await;
    let token = cx.ok("touch after the clock stepped back", touched)?;
    clock.advance(cx.moment() + cx.margin());
    cx.absent(
        "after the expiry by the clock that stepped back",
        &store,
        &token,
    )
    .await
}

async fn t13_an_expired_record_that_was_not_swept_is_absent(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let mut old = cx.record_for("the data of the old session", cx.moment());
    old.subject = Some(cx.subject("old"));
    let token = cx.token();
    store.create(token.clone(), &old).await?;
    cx.pass_until(old.expires_at + cx.margin()).await;
    let missing = ErrorKind::Missing;
    let new = cx.record("new");
    let updated = store.update(&token, old.revision, &new).await;
    cx.err("update of an expired record", missing, updated)?;
    let touched = store.touch(&token, new.expires_at).await;
    cx.err("touch of an expired record", missing, touched)?;
    let renewed = store.renew(&token, old.revision, &new).await;
    cx.err("renew of an expired record", missing, renewed)?;
    cx.absent("after they failed", &store, &token).await?;

    let created = store.create(token.clone(), &new).await;
    cx.ok("create over an expired record", created)?;
    cx.holds("after that", &store, &token, &new).await?;
    if let Some(index) = store.subjects() {
        let listed = cx.ok("list", index.list(&cx.subject("old"), None, 10).await)?;
        cx.equal("the sessions of the old subject are", &listed.len(), &0)?;
    }
    Ok(())
}

/// Instants around the places where a number of seconds or milliseconds gets one digit more, and the
/// last one.
const FAR: [(&str, Timestamp); 7] = [
    (
        "shortly before 2286-11-20",
        Timestamp::from_millis(9_999_999_999_999),
    ),
    ("2286-11-20", Timestamp::from_millis(10_000_000_000_000)),
    (
        "shortly after 2286-11-20",
        Timestamp::from_millis(10_000_000_000_001),
    ),
    ("the year 3000", Timestamp::from_millis(32_503_680_000_000)),
    ("the year 4000", Timestamp::from_millis(64_060_588_800_123)),
    ("the year 5138", Timestamp::from_millis(100_000_000_000_000)),
    ("the end of the year 9999", Timestamp::MAX),
];

async fn t40_instants_from_2286_to_9999_are_kept_and_compared(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let last = match cx.capabilities().max_lifetime {
        Some(longest) => cx.now() + longest,
        None => Timestamp::MAX,
    };
    let mut kept = Vec::new();
    for (what, instant) in FAR {
        let far = Record {
            created_at: instant,
            expires_at: instant.min(last),
            subject: Some(cx.subject("far")),
            ..cx.record(what)
        };
        let created = store.create(cx.token(), &far).await;
        let token = cx.ok(&format!("create until {what}"), created)?;
        let when = format!("created in and until {what}");
        cx.holds(&when, &store, &token, &far).await?;
        cx.holds(&when, &other, &token, &far).await?;

        let short = cx.record_for("short", cx.moment());
        let near = store.create(cx.token(), &short).await?;
        let touched = store.touch(&near, far.expires_at).await;
        let near = cx.ok(&format!("touch until {what}"), touched)?;
        let touched = Record {
            expires_at: far.expires_at,
            ..short
        };
        cx.holds(&format!("touched until {what}"), &store, &near, &touched)
            .await?;

        let next = Record {
            revision: cx.revision(),
            ..far
        };
        let updated = store.update(&near, touched.revision, &next).await;
        let near = cx.ok(&format!("update until {what}"), updated)?;
        let when = format!("updated to a creation and an expiry in {what}");
        cx.holds(&when, &store, &near, &next).await?;
        kept.push((
            token,
            Record {
                revision: far.revision,
                ..next.clone()
            },
        ));
        kept.push((near, next));
    }
    if cx.capabilities().sweep == Sweep::Explicit {
        let swept = cx.ok("sweep", store.sweep(1000).await)?;
        cx.equal(
            "a sweep of sessions that end in centuries removes",
            &swept,
            &0,
        )?;
    }
    for (token, record) in &kept {
        cx.holds("in the far future, after all", &store, token, record)
            .await?;
    }
    if let Some(index) = store.subjects() {
        let listed = cx.ok("list", index.list(&cx.subject("far"), None, 100).await)?;
        let mut listed: Vec<_> = listed
            .iter()
            .map(|session| (session.created_at, session.expires_at))
            .collect();
        let mut expected: Vec<_> = kept
            .iter()
            .map(|(_, record)| (record.created_at, record.expires_at))
            .collect();
        listed.sort();
        expected.sort();
        cx.equal("creations and expiries in the list are", &listed, &expected)?;
    }
    match cx.manual_clock() {
        Some(clock) => across(cx, &store, &clock).await,
        None => Ok(()),
    }
}

/// Lets the clock pass each of the instants, between the expiries of two records.
async fn across(cx: &Context, store: &dyn SessionStore, clock: &ManualClock) -> Outcome {
    for (what, instant) in FAR {
        let (step, margin) = (cx.moment(), cx.margin());
        clock.set(instant - 2 * step);
        let until = |expires_at| Record {
            expires_at,
            ..cx.record(what)
        };
        let (early, late) = (until(instant - step), until(instant + step));
        let gone = store.create(cx.token(), &early).await?;
        let there = store.create(cx.token(), &late).await?;
        for (token, record) in [(&gone, &early), (&there, &late)] {
            cx.holds(&format!("before {what}"), store, token, record)
                .await?;
        }
        // The last instant of all has nothing behind it.
        clock.set(instant.min(Timestamp::MAX - margin - Duration::from_millis(1)));
        if cx.capabilities().sweep == Sweep::Explicit {
            cx.ok("sweep", store.sweep(1000).await)?;
        }
        cx.absent(
            &format!("in {what} of what has expired before"),
            store,
            &gone,
        )
        .await?;
        cx.holds(
            &format!("in {what} of what expires later"),
            store,
            &there,
            &late,
        )
        .await?;
    }
    Ok(())
}

async fn t41_a_clock_that_is_set_back_brings_nothing_back_and_ends_nothing(
    cx: &Context,
) -> Outcome {
    let Some(clock) = cx.manual_clock() else {
        return Err(cx.without_clock());
    };
    let (store, other) = (cx.open().await?, cx.open().await?);
    let explicit = cx.capabilities().sweep == Sweep::Explicit;
    for (what, back) in [("an hour", 3600), ("a day", 86_400)] {
        let back = Duration::from_secs(back).max(10 * cx.moment());
        let alice = cx.subject(&format!("alice, {what}"));
        let owned = |lifetime| Record {
            subject: Some(alice.clone()),
            ..cx.record_for("hello", lifetime)
        };
        let mut live = owned(3 * back);
        let short = owned(cx.moment());
        let kept = store.create(cx.token(), &live).await?;
        let [swept, deleted] = [cx.token(), cx.token()];
        store.create(swept.clone(), &short).await?;
        store.create(deleted.clone(), &live).await?;
        cx.pass(back).await;
        cx.ok("delete", store.delete(&deleted, None).await)?;
        if explicit {
            cx.ok("sweep", store.sweep(1000).await)?;
        }
        clock.set(cx.now() - back - cx.moment() / 2);
        let when = format!("after the clock was set back by {what}");
        for handle in [&store, &other] {
            cx.holds(&when, handle, &kept, &live).await?;
            cx.absent(&format!("of a deleted record {when}"), handle, &deleted)
                .await?;
            // Without a sweep it lives once more, by the clock that decides.
            if explicit {
                cx.absent(&format!("of a swept record {when}"), handle, &swept)
                    .await?;
                let touched = handle.touch(&swept, live.expires_at).await;
                let call = format!("touch of a swept record {when}");
                cx.err(&call, ErrorKind::Missing, touched)?;
            }
            let touched = handle.touch(&deleted, live.expires_at).await;
            let call = format!("touch of a deleted record {when}");
            cx.err(&call, ErrorKind::Missing, touched)?;
        }
        // What begins and ends before the instant that the clock has shown already.
        let early = owned(cx.moment());
        let begun = store.create(cx.token(), &early).await;
        let begun = cx.ok(&format!("create {when}"), begun)?;
        live.expires_at = cx.now() + cx.moment();
        let touched = store.touch(&kept, live.expires_at).await;
        let kept = cx.ok(&format!("touch {when}"), touched)?;
        if explicit {
            let swept = cx.ok("sweep", store.sweep(1000).await)?;
            cx.equal(&format!("a sweep {when} removes"), &swept, &0)?;
        }
        for handle in [&store, &other] {
            cx.settle().await;
            cx.holds(&format!("of a new record {when}"), handle, &begun, &early)
                .await?;
            cx.holds(&format!("of a touched record {when}"), handle, &kept, &live)
                .await?;
        }
        if let (Some(index), true) = (store.subjects(), explicit) {
            let listed = cx.ok("list", index.list(&alice, None, 10).await)?;
            cx.equal(
                &format!("the length of a list {when} is"),
                &listed.len(),
                &2,
            )?;
        }
        cx.pass_until(live.expires_at + cx.margin()).await;
        for handle in [&store, &other] {
            for token in [&begun, &kept] {
                cx.absent(
                    "after the expiry by the clock that was set back",
                    handle,
                    token,
                )
                .await?;
            }
        }
    }
    Ok(())
}
