use sessionkit::{ErrorKind, Record};

use super::case;
use crate::{Case, Context, Failure, Outcome, RawEntry};

pub(super) const CASES: &[Case] = &[
    case!(Lim b01_too_large_is_refused_and_changes_nothing []
        "larger data are [`TooLarge`](crate::ErrorKind::TooLarge) before anything is written"
        "An attacker fills the store, or a user loses the session to one value that is too large."),
    case!(Lim b02_lengths_in_stored_values_are_not_believed [Server]
        "[`Corrupt`](crate::ErrorKind::Corrupt) when what is stored cannot be read as a record"
        "Twenty bytes that claim to be four gigabytes end the process (RUSTSEC-2019-0025)."),
    case!(Lim b03_a_hostile_namespace_is_refused_or_a_namespace []
        "The configuration cannot work, or is unsafe."
        "A prefix from a configuration file is executed as a query, or names another directory."),
    case!(Lim b04_a_sweep_keeps_to_its_limit [Server ExplicitSweep]
        "Removes at most `limit` expired records"
        "The cleaner locks the table for minutes when there is much to clean."),
];

async fn b01_too_large_is_refused_and_changes_nothing(cx: &Context) -> Outcome {
    let max = cx.capabilities().max_data;
    if max > 128 << 20 {
        return Err(Failure::skip("the store takes more than 128 MiB"));
    }
    let store = cx.open().await?;
    let first = cx.record("first");
    let token = store.create(cx.token(), &first).await?;
    let large = cx.changed(&first, vec![b'x'; max + 1]);
    let too_large = ErrorKind::TooLarge;
    let updated = store.update(&token, first.revision, &large).await;
    cx.err("update with a byte more than max_data", too_large, updated)?;
    cx.holds("after that", &store, &token, &first).await?;
    let renewed = store.renew(&token, first.revision, &large).await;
    cx.err("renew with a byte more than max_data", too_large, renewed)?;
    cx.holds("after that", &store, &token, &first).await?;
    let fresh = cx.token();
    let created = store.create(fresh.clone(), &large).await;
    cx.err("create with a byte more than max_data", too_large, created)?;
    cx.absent("after that", &store, &fresh).await
}

async fn b02_lengths_in_stored_values_are_not_believed(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let token = cx.token();
    store.create(token.clone(), &cx.record("hello")).await?;
    let entries = cx.raw_dump().await?;
    for entry in &entries {
        // The largest number in any place and any width that a format may have.
        for start in (0..entry.value.len()).take(48) {
            let mut value = entry.value.clone();
            value.truncate(64.max(start));
            value[start..]
                .iter_mut()
                .take(8)
                .for_each(|byte| *byte = 0xff);
            cx.raw_write(&RawEntry {
                name: entry.name.clone(),
                value,
            })
            .await?;
            match cx.open().await?.load(&token).await {
                Ok(_) => cx.check(true, "", "")?,
                Err(error) => {
                    let call = format!("load of ones from byte {start} on");
                    cx.err(&call, ErrorKind::Corrupt, Err::<(), _>(error))?;
                }
            }
        }
        cx.raw_write(entry).await?;
    }
    Ok(())
}

async fn b03_a_hostile_namespace_is_refused_or_a_namespace(cx: &Context) -> Outcome {
    let own = cx.namespace();
    let record = cx.record("hello");
    let store = cx.open().await?;
    let token = store.create(cx.token(), &record).await?;
    let names = [
        String::new(),
        format!("{own}; DROP TABLE sessions"),
        format!("{own}'\"`"),
        format!("../{own}"),
        format!("/{own}"),
        format!("{own}\0"),
        format!("{own}\r\nFLUSHALL"),
        format!("{own} "),
        own.to_uppercase(),
        format!("{own}{}", "x".repeat(300)),
    ];
    for name in &names {
        let call = format!("open of the namespace {:?}", &name[..name.len().min(60)]);
        match cx.try_open_in(name).await {
            Err(error) => cx.err(&call, ErrorKind::InvalidConfig, Err::<(), _>(error))?,
            Ok(other) if cx.capabilities().custody == sessionkit::Custody::Server => {
                cx.absent(&format!("after {call}"), &other, &token).await?;
                let created = other
                    .create(
                        token.clone(),
                        &Record {
                            revision: cx.revision(),
                            ..record.clone()
                        },
                    )
                    .await;
                cx.ok(&format!("create after {call}"), created)?;
                cx.ok(
                    &format!("delete after {call}"),
                    other.delete(&token, None).await,
                )?;
            }
            Ok(_) => {}
        }
        cx.holds(
            &format!("in the first namespace after {call}"),
            &store,
            &token,
            &record,
        )
        .await?;
    }
    Ok(())
}

async fn b04_a_sweep_keeps_to_its_limit(cx: &Context) -> Outcome {
    const EXPIRED: u64 = 500;
    let store = cx.open().await?;
    let stale = Record {
        expires_at: cx.now() - cx.moment(),
        ..cx.record("stale")
    };
    let stored = cx.stored_names().await;
    for _ in 0..EXPIRED {
        store.create(cx.token(), &stale).await?;
    }
    cx.equal(
        "a sweep of 0 records removes",
        &cx.ok("sweep", store.sweep(0).await)?,
        &0,
    )?;
    let mut total = 0;
    loop {
        let swept = cx.ok("sweep", store.sweep(64).await)?;
        cx.check(swept <= 64, "a sweep of at most 64 records", swept)?;
        total += swept;
        if swept < 64 || total > EXPIRED {
            break;
        }
    }
    cx.swept(
        "all sweeps together remove",
        (total, EXPIRED),
        stored.as_ref(),
    )
    .await
}
