use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sessionkit::{ErrorKind, Record, SessionStore};

use super::case;
use crate::{Case, Context, Outcome, RawEntry};

pub(super) const CASES: &[Case] = &[
    case!(Sweep w01_a_sweep_removes_what_has_expired_and_nothing_else [Server ExplicitSweep]
        "Removes at most `limit` expired records, and what is left over from interrupted writes, and returns how many records it removed."
        "The store grows without end, or the cleaner ends sessions that are in use."),
    case!(parallel Sweep w02_sweeps_at_the_same_time_share_the_work [Server ExplicitSweep]
        "Safe beside every other call"
        "Every server of a cluster sweeps, and they fail on each other."),
    case!(Sweep w04_a_sweep_steps_over_what_it_cannot_read [Server ExplicitSweep]
        "Fewer than `limit` means that none is left, or that the deadline came."
        "One damaged record stops the cleaning for ever."),
    case!(Sweep w05_a_backend_that_sweeps_by_itself_does_it [Server NativeSweep]
        "Where [`Capabilities::sweep`] is [`Sweep::Native`] the backend removes expired records by itself, and this does nothing and returns 0."
        "Expired sessions fill the memory of the server."),
    case!(Sweep w06_a_store_without_a_sweep_refuses_it [NoSweep]
        "[`Unsupported`](crate::ErrorKind::Unsupported) where [`Capabilities::sweep`] is [`Sweep::Unsupported`]."
        "An operator believes that old sessions are removed."),
    case!(parallel Sweep w07_try_sweep_sweeps_or_leaves_it_to_another [Server ExplicitSweep]
        "unless another process is sweeping the same records at the moment: `None` then."
        "Every host sweeps at the same time, or each leaves it to the others and nobody does."),
];

type Store = Arc<dyn SessionStore>;

pub(super) fn expired(cx: &Context, data: &'static str) -> Record {
    let expires_at = cx.now() - cx.moment();
    Record {
        expires_at,
        ..cx.record(data)
    }
}

async fn w01_a_sweep_removes_what_has_expired_and_nothing_else(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let live = cx.record("live");
    let soon = cx.record_for("soon", cx.moment());
    let stale = expired(cx, "stale");
    let mut kept = Vec::new();
    let mut stored = Vec::new();
    for record in [&live, &soon] {
        for _ in 0..100 {
            kept.push((store.create(cx.token(), record).await?, record));
        }
        stored.push(cx.stored_names().await);
    }
    for _ in 0..100 {
        store.create(cx.token(), &stale).await?;
    }
    let swept = cx.ok("sweep", store.sweep(10_000).await)?;
    cx.swept(
        "the number of swept records is",
        (swept, 100),
        stored[1].as_ref(),
    )
    .await?;
    for (token, record) in &kept {
        cx.holds("of a live record after a sweep", &store, token, record)
            .await?;
    }
    cx.equal(
        "a second sweep removes",
        &cx.ok("sweep", store.sweep(10_000).await)?,
        &0,
    )?;

    cx.pass_until(soon.expires_at + cx.margin()).await;
    let swept = cx.ok("sweep", store.sweep(10_000).await)?;
    let what = "the number of records that were swept after they expired is";
    cx.swept(what, (swept, 100), stored[0].as_ref()).await?;
    for (token, record) in kept
        .iter()
        .filter(|(_, record)| record.revision == live.revision)
    {
        cx.holds("of a live record after a sweep", &store, token, record)
            .await?;
    }
    Ok(())
}

async fn w02_sweeps_at_the_same_time_share_the_work(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    for round in 0..5 {
        let live = cx.record("live");
        let kept = store.create(cx.token(), &live).await?;
        let stored = cx.stored_names().await;
        let stale = expired(cx, "stale");
        for _ in 0..100 {
            store.create(cx.token(), &stale).await?;
        }
        let sweeps = (0..4).map(|number| {
            let store = if number % 2 == 0 {
                store.clone()
            } else {
                other.clone()
            };
            async move { store.sweep(1000).await }
        });
        let mut total = 0;
        for swept in cx.race(sweeps.collect::<Vec<_>>()).await? {
            total += cx.ok("one of four sweeps", swept)?;
        }
        let what = format!("in round {round}, four sweeps together remove");
        cx.swept(&what, (total, 100), stored.as_ref()).await?;
        cx.holds("of a live record after four sweeps", &store, &kept, &live)
            .await?;
    }
    Ok(())
}

async fn w04_a_sweep_steps_over_what_it_cannot_read(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    for name in ["sweep", "try_sweep"] {
        steps_over(cx, &store, name).await?;
    }
    Ok(())
}

async fn steps_over(cx: &Context, store: &Store, name: &str) -> Outcome {
    let stale = expired(cx, "stale");
    let live = cx.record("live");
    let kept = store.create(cx.token(), &live).await?;
    let ruined = cx.token();
    let before = cx.raw_dump().await?;
    store.create(ruined.clone(), &stale).await?;
    let after = cx.raw_dump().await?;
    for entry in after.iter().filter(|entry| !before.contains(entry)) {
        let value = b"?".to_vec();
        cx.raw_write(&RawEntry {
            name: entry.name.clone(),
            value,
        })
        .await?;
    }
    for _ in 0..20 {
        store.create(cx.token(), &stale).await?;
    }
    let swept = match name {
        "sweep" => store.sweep(1000).await,
        _ => store.try_sweep(1000).await.map(Option::unwrap_or_default),
    };
    let swept = cx.ok(&format!("{name} beside an unreadable record"), swept)?;
    // The unreadable one may count or not: nobody knows when it expires.
    cx.check(swept <= 21, "20 expired records are swept", swept)?;
    cx.holds("of a live record after the sweep", store, &kept, &live)
        .await?;
    cx.ok(
        "delete of the unreadable record",
        store.delete(&ruined, None).await,
    )?;
    let left = cx.raw_dump().await?;
    cx.check(
        left.len() == before.len(),
        format_args!("{} stored entries after the sweep", before.len()),
        format_args!("{}", left.len()),
    )
}

async fn w05_a_backend_that_sweeps_by_itself_does_it(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let empty = cx.raw_dump().await;
    let record = cx.record_for("hello", cx.moment());
    for _ in 0..20 {
        store.create(cx.token(), &record).await?;
    }
    cx.pass_until(record.expires_at + cx.margin()).await;
    let swept = cx.ok("sweep", store.sweep(100).await)?;
    cx.equal(
        "a sweep that the backend does by itself removes",
        &swept,
        &0,
    )?;
    let tried = cx.ok("try_sweep", store.try_sweep(100).await)?;
    cx.equal("and try_sweep", &tried, &Some(0))?;
    let Ok(empty) = empty else {
        return Ok(());
    };
    // Servers remove what has expired in portions, some of them every few seconds.
    let begun = Instant::now();
    loop {
        let left = cx.raw_dump().await?.len();
        if left <= empty.len() || begun.elapsed() > Duration::from_secs(20) {
            let expected = format!("{} entries some time after the expiry", empty.len());
            return cx.check(left <= empty.len(), expected, left);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn w06_a_store_without_a_sweep_refuses_it(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    cx.err("sweep", ErrorKind::Unsupported, store.sweep(100).await)?;
    let tried = store.try_sweep(100).await;
    cx.err("try_sweep", ErrorKind::Unsupported, tried)
}

/// Sweeps as a background task does, until nothing is left: somebody else is at it only for a while.
async fn try_until_empty(cx: &Context, store: &Store, limit: u64) -> Outcome<u64> {
    let mut total = 0;
    let mut left_to_others = 0;
    loop {
        match cx.ok("try_sweep", store.try_sweep(limit as usize).await)? {
            Some(swept) => {
                cx.check(
                    swept <= limit,
                    format_args!("try_sweep of at most {limit} records"),
                    swept,
                )?;
                total += swept;
                if swept < limit || total > 1000 {
                    return Ok(total);
                }
            }
            None => {
                left_to_others += 1;
                cx.check(
                    left_to_others < 500,
                    "try_sweep that nobody stands in the way of",
                    "500 times None",
                )?;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn w07_try_sweep_sweeps_or_leaves_it_to_another(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let live = cx.record("live");
    let kept = store.create(cx.token(), &live).await?;
    for round in 0..3 {
        let stale = expired(cx, "stale");
        let stored = cx.stored_names().await;
        for _ in 0..100 {
            store.create(cx.token(), &stale).await?;
        }
        let tries = (0..4).map(|number| {
            let store = [&store, &other][number % 2].clone();
            async move { store.try_sweep(30).await }
        });
        let mut total = 0;
        for tried in cx.race(tries.collect::<Vec<_>>()).await? {
            total += cx.ok("one of four calls of try_sweep", tried)?.unwrap_or(0);
        }
        total += try_until_empty(cx, &store, 30).await?;
        let what = format!("in round {round}, all calls of try_sweep together remove");
        cx.swept(&what, (total, 100), stored.as_ref()).await?;
        cx.holds("of a live record after try_sweep", &store, &kept, &live)
            .await?;
    }
    Ok(())
}
