use std::sync::Arc;

use sessionkit::{ErrorKind, Record, SessionStore, Sweep};

use super::case;
use crate::{Case, Context, Outcome};

pub(super) const CASES: &[Case] = &[
    case!(Iso i01_two_namespaces_know_nothing_of_each_other [Server]
        "Two namespaces (prefix, table, directory) never see or change each other's records"
        "Two applications on one server share their sessions (CodeIgniter, CVE-2022-46170)."),
    case!(Iso i02_namespaces_with_similar_names_do_not_leak [Server]
        "Two namespaces (prefix, table, directory) never see or change each other's records"
        "A search by prefix or pattern finds the sessions of a namespace with a longer name."),
    case!(Iso i03_strangers_in_the_backend_are_left_alone [Server]
        "whatever else lives beside them is neither read as a session nor removed"
        "The sweeper deletes what belongs to somebody else (Django, CVE-2011-4136)."),
    case!(Iso i60_long_namespaces_are_apart_to_the_last_byte [Server]
        "Two namespaces (prefix, table, directory) never see or change each other's records"
        "A name that is cut to the length of a column or a key makes two applications one."),
];

type Store = Arc<dyn SessionStore>;

/// Does everything in one namespace that could be felt in another, where nothing may change.
async fn act_beside(cx: &Context, here: &Store, there: &Store, names: &str) -> Outcome {
    let (token, mine, theirs) = (cx.token(), cx.record("mine"), cx.record("theirs"));
    let subject = cx.subject(&format!("alice{}", cx.random().next()));
    let with_subject = |record: &Record| Record {
        subject: Some(subject.clone()),
        ..record.clone()
    };
    let (mine, theirs) = (with_subject(&mine), with_subject(&theirs));
    there.create(token.clone(), &theirs).await?;
    cx.absent(&format!("in {names} of a token of the other"), here, &token)
        .await?;
    let touched = here.touch(&token, mine.expires_at).await;
    cx.err(
        &format!("touch in {names} of a token of the other"),
        ErrorKind::Missing,
        touched,
    )?;
    let created = here.create(token.clone(), &mine).await;
    cx.ok(&format!("create in {names} of the other's token"), created)?;
    let stale = Record {
        expires_at: cx.now() - cx.moment(),
        ..cx.record("stale")
    };
    there.create(cx.token(), &stale).await?;

    let second = cx.changed(&mine, "second");
    here.update(&token, mine.revision, &second).await?;
    cx.holds(
        "in the other namespace after update",
        there,
        &token,
        &theirs,
    )
    .await?;
    if let (Some(index), Some(other)) = (here.subjects(), there.subjects()) {
        let listed = cx.ok("list", index.list(&subject, None, 10).await)?;
        cx.equal(
            &format!("the sessions of a subject in {names} are"),
            &listed.len(),
            &1,
        )?;
        let revoked = cx.ok("revoke_all", index.revoke_all(&subject, None).await)?;
        cx.equal(
            &format!("the sessions that were revoked in {names} are"),
            &revoked,
            &1,
        )?;
        cx.holds(
            "in the other namespace after revoke_all",
            there,
            &token,
            &theirs,
        )
        .await?;
        let listed = cx.ok("list", other.list(&subject, None, 10).await)?;
        cx.equal("the sessions in the other namespace are", &listed.len(), &1)?;
    } else {
        here.delete(&token, Some(second.revision)).await?;
    }
    if let Some(index) = here.subjects() {
        let revoked = cx.ok("revoke", index.revoke(&subject, &token.key()).await)?;
        cx.equal(
            &format!("whether revoke in {names} ended the other's session is"),
            &revoked,
            &false,
        )?;
    }
    here.delete(&token, None).await?;
    cx.holds(
        "in the other namespace after revoke and delete",
        there,
        &token,
        &theirs,
    )
    .await?;
    if cx.capabilities().sweep == Sweep::Explicit {
        let swept = cx.ok("sweep", here.sweep(100).await)?;
        cx.equal(
            &format!("the records that were swept in {names} are"),
            &swept,
            &0,
        )?;
        let swept = cx.ok("sweep", there.sweep(100).await)?;
        let by_this_one = swept == 0 && sweeps_the_other(cx, here, there).await?;
        cx.check(
            swept <= 1 && !by_this_one,
            "the records that were swept in the other are 1",
            match by_this_one {
                true => "0: a sweep beside it has removed them".into(),
                false => swept.to_string(),
            },
        )?;
    }
    cx.holds("in the other namespace at the end", there, &token, &theirs)
        .await
}

/// Whether it is a sweep in one namespace that removes what has expired in the other. The backend may
/// do so by itself at any time; then it is gone without that sweep too, or still there after it.
pub(super) async fn sweeps_the_other(cx: &Context, here: &Store, there: &Store) -> Outcome<bool> {
    let stale = Record {
        expires_at: cx.now() - cx.moment(),
        ..cx.record("stale")
    };
    for _ in 0..3 {
        there.create(cx.token(), &stale).await?;
        let alone = cx.ok("sweep", there.sweep(100).await)?;
        there.create(cx.token(), &stale).await?;
        cx.ok("sweep", here.sweep(100).await)?;
        cx.ok("try_sweep", here.try_sweep(100).await)?;
        let beside = cx.ok("sweep", there.sweep(100).await)?;
        if (alone, beside) != (1, 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn i01_two_namespaces_know_nothing_of_each_other(cx: &Context) -> Outcome {
    let here = cx.open().await?;
    let there = cx.open_in(&format!("other_{}", cx.namespace())).await?;
    act_beside(cx, &here, &there, "the first namespace").await?;
    act_beside(cx, &there, &here, "the second namespace").await
}

async fn i02_namespaces_with_similar_names_do_not_leak(cx: &Context) -> Outcome {
    let here = cx.open().await?;
    let own = cx.namespace();
    // The underscore of the name is a wildcard where LIKE is used.
    let names = [
        format!("{own}b"),
        format!("{own}_"),
        own.replace('_', "x"),
        own[..own.len() - 1].to_owned(),
        format!("{own}:"),
        format!("{own}*"),
        format!("{own}%"),
        format!("{own}/a"),
    ];
    for name in &names {
        match cx.try_open_in(name).await {
            Ok(there) => {
                act_beside(cx, &here, &there, &format!("the namespace beside {name:?}")).await?;
                act_beside(cx, &there, &here, &format!("{name:?}")).await?;
            }
            Err(error) => {
                let call = format!("open of the namespace {name:?}");
                cx.err(&call, ErrorKind::InvalidConfig, Err::<(), _>(error))?;
            }
        }
    }
    Ok(())
}

async fn i03_strangers_in_the_backend_are_left_alone(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let before = cx.foreign().await?;
    let record = cx.record("hello");
    let stale = Record {
        expires_at: cx.now() - cx.moment(),
        ..cx.record("stale")
    };
    let token = store.create(cx.token(), &record).await?;
    let stored = cx.stored_names().await;
    store.create(cx.token(), &stale).await?;
    for entry in &before {
        // A token that is spelled like the name of a stranger.
        let token = sessionkit::Token::from_bytes(entry.name.clone(), cx.cookie());
        cx.absent("of a token named like a stranger", &store, &token)
            .await?;
        cx.ok(
            "delete of a token named like a stranger",
            store.delete(&token, None).await,
        )?;
    }
    if cx.capabilities().sweep == Sweep::Explicit {
        let swept = cx.ok("sweep", store.sweep(1000).await)?;
        cx.swept(
            "the number of swept records is",
            (swept, 1),
            stored.as_ref(),
        )
        .await?;
    }
    if let Some(index) = store.subjects() {
        cx.ok(
            "revoke_all",
            index.revoke_all(&cx.subject("alice"), None).await,
        )?;
    }
    cx.holds("beside strangers", &store, &token, &record)
        .await?;
    store.delete(&token, None).await?;
    cx.equal("what lives beside is", &cx.foreign().await?, &before)
}

/// The longest namespace of the kit, in bytes.
const LONGEST: usize = 32;

async fn i60_long_namespaces_are_apart_to_the_last_byte(cx: &Context) -> Outcome {
    let own = cx.namespace();
    let padding = "x".repeat(LONGEST - own.len() - 1);
    // They differ in the last byte, in the first, in the one in the middle, and in their length.
    let names = [
        format!("{own}{padding}a"),
        format!("{own}{padding}b"),
        format!("a{padding}{own}"),
        format!("b{padding}{own}"),
        format!("{own}a{}", &padding),
        format!("{own}b{}", &padding),
        format!("{own}{padding}"),
    ];
    let mut stores = Vec::new();
    for name in &names {
        let opened = cx.try_open_in(name).await;
        stores.push(cx.ok(&format!("open of the namespace {name:?}"), opened)?);
    }
    let neighbours = (0..names.len()).map(|here| (here, (here + 1) % names.len()));
    for (here, there) in neighbours {
        for (here, there) in [(here, there), (there, here)] {
            act_beside(
                cx,
                &stores[here],
                &stores[there],
                &format!("{:?}", names[here]),
            )
            .await?;
        }
    }
    Ok(())
}
