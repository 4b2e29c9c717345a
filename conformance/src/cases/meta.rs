use std::sync::Arc;

use sessionkit::{Custody, ErrorKind, SessionStore, Sweep};

use super::case;
use crate::{
    Case, Context, Failure, Harness, Outcome, Verdict, broken::BrokenHarness, registry::find_case,
    runner::run_once,
};

pub(super) const CASES: &[Case] = &[
    case!(Meta m01_the_kit_catches_a_store_that_is_broken_on_purpose []
        "After `Ok` no handle, cache or host returns the record."
        "A kit that passes everything proves nothing."),
    case!(Meta m02_a_store_is_what_it_declares []
        "The answer never changes during the life of a store, and is the same for every handle of one namespace."
        "An application relies on a promise that the store does not keep."),
    case!(Meta m03_a_destroyed_namespace_is_empty []
        "Two namespaces (prefix, table, directory) never see or change each other's records"
        "Tests fill a shared server, or one run sees what another has left."),
];

async fn m01_the_kit_catches_a_store_that_is_broken_on_purpose(cx: &Context) -> Outcome {
    let harness: Arc<dyn Harness> = Arc::new(BrokenHarness::new(cx.harness().canary())?);
    let case = find_case("L04").ok_or_else(|| Failure::error("the registry has lost L04"))?;
    let verdict = run_once(case, harness, cx.seed()).await;
    cx.check(
        matches!(&verdict, Verdict::Fail { expected, .. } if expected.contains("after delete")),
        "a failure of L04 on a store that does not delete",
        format_args!("the canary is alive: {}", verdict.word()),
    )
}

async fn m02_a_store_is_what_it_declares(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let declared = store.capabilities();
    cx.equal("a second handle declares", &other.capabilities(), &declared)?;
    if declared.custody == Custody::Server {
        cx.check(
            declared.compare_and_swap,
            "a server-side store that compares revisions",
            "one that does not",
        )?;
    }
    let token = store.create(cx.token(), &cx.record("hello")).await?;
    let swept = store.sweep(1).await;
    match declared.sweep {
        Sweep::Unsupported => cx.err("sweep", ErrorKind::Unsupported, swept)?,
        Sweep::Native => cx.equal("a native sweep removes", &cx.ok("sweep", swept)?, &0)?,
        _ => cx.equal("a sweep of nothing removes", &cx.ok("sweep", swept)?, &0)?,
    }
    let found = cx.ok("load", other.load(&token).await)?;
    cx.check(found.is_some(), "a record after the sweep", "None")?;
    let same = store.subjects().is_some() == other.subjects().is_some();
    cx.check(
        same,
        "an index on all handles or none",
        "an index on one handle",
    )?;
    for handle in [&store, &other, &cx.open().await?] {
        cx.equal(
            "at the end a handle declares",
            &handle.capabilities(),
            &declared,
        )?;
    }
    Ok(())
}

async fn m03_a_destroyed_namespace_is_empty(cx: &Context) -> Outcome {
    let namespace = format!("{}_gone", cx.namespace());
    let store = cx.open_in(&namespace).await?;
    let (token, stale) = (cx.token(), cx.token());
    let mut record = cx.record("hello");
    record.subject = Some(cx.subject("alice"));
    let token = store.create(token, &record).await?;
    record.expires_at = cx.now() - cx.moment();
    store.create(stale.clone(), &record).await?;
    drop(store);
    let destroyed = cx.harness().destroy(&namespace).await;
    if let Err(error) = destroyed {
        return Err(Failure::error(format!("destroy failed: {error}")));
    }
    if let Ok(left) = cx.harness().raw_dump(&namespace).await {
        let expected = "nothing in a destroyed namespace";
        cx.check(
            left.is_empty(),
            expected,
            format_args!("{} entries", left.len()),
        )?;
    }
    if cx.capabilities().custody == Custody::Server {
        let store = cx.open_in(&namespace).await?;
        cx.absent("from a namespace that was destroyed", &store, &token)
            .await?;
        store.create(token, &record).await?;
    }
    cx.check(true, "", "")
}
