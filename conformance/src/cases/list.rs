use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use sessionkit::{
    Error, ErrorKind, Label, OsEntropy, Record, SessionStore, StoreKey, Subject, SubjectIndex,
    SubjectSession, Token,
};
use tokio::sync::Barrier;

use super::{
    case,
    flt::{GONE, in_time},
};
use crate::{Case, Context, Failure, Outcome};

pub(super) const CASES: &[Case] = &[
    case!(List n01_a_list_has_the_live_sessions_and_opens_none [Server Subjects]
        "The live sessions of a subject in ascending order of their keys, at most `limit` of them, starting behind `after`."
        "A list that is incomplete hides a stolen session; one that shows tokens gives sessions away (Mattermost, CVE-2016-11072)."),
    case!(List n02_paging_shows_what_stays_exactly_once [Server Subjects]
        "A session that lives during a whole listing appears in it exactly once, whatever comes and goes meanwhile."
        "A session is skipped while others begin and end, and never revoked."),
    case!(List n03_the_index_follows_every_write [Server Subjects]
        "The index follows every write"
        "A session that has moved or changed hands is listed for the wrong person, or for nobody."),
    case!(List n04_revoking_ends_what_it_names_and_nothing_else [Server Subjects]
        "Ends every session of the subject that was stored before the call, but the one under `except`. Returns how many were live."
        "After a password change the thief is still logged in, or other people are logged out."),
    case!(parallel List n05_revoking_everything_is_not_outrun [Server Subjects]
        "Ends every session of the subject that was stored before the call"
        "A session that is renewed at the right moment survives `log out everywhere`."),
    case!(List n06_a_store_without_an_index_keeps_the_subject [NoSubjects]
        "The index by subject, on stores that keep one."
        "A session loses its owner where nobody lists it."),
    case!(parallel List n07_revoking_everything_ends_while_the_subject_signs_in [Server Subjects]
        "Each call ends within the deadline that the store was opened with"
        "Whoever goes on signing in keeps `log out everywhere` from ever ending."),
];

type Store = Arc<dyn SessionStore>;

pub(super) fn index(store: &Store) -> Outcome<&dyn SubjectIndex> {
    store
        .subjects()
        .ok_or_else(|| Failure::error("the index has disappeared"))
}

pub(super) fn owned(cx: &Context, subject: &Subject, label: &str) -> Outcome<Record> {
    let mut record = cx.record("hello");
    record.subject = Some(subject.clone());
    record.label = Label::new(label)?;
    Ok(record)
}

pub(super) async fn listed(
    cx: &Context,
    store: &Store,
    subject: &Subject,
) -> Outcome<Vec<SubjectSession>> {
    cx.ok("list", index(store)?.list(subject, None, 1000).await)
}

/// Exactly these tokens are listed.
pub(super) async fn lists(
    cx: &Context,
    when: &str,
    store: &Store,
    subject: &Subject,
    tokens: &[&Token],
) -> Outcome {
    let mut expected: Vec<_> = tokens.iter().map(|token| token.key().to_hex()).collect();
    expected.sort();
    let found = listed(cx, store, subject).await?;
    let found: Vec<_> = found.iter().map(|session| session.key.to_hex()).collect();
    cx.equal(&format!("{when}, the list is"), &found, &expected)
}

async fn n01_a_list_has_the_live_sessions_and_opens_none(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let alice = cx.subject("alice");
    lists(cx, "without sessions", &store, &alice, &[]).await?;
    let mut sessions = Vec::new();
    for number in 0..5 {
        let record = owned(cx, &alice, &format!("browser {number}"))?;
        sessions.push((store.create(cx.token(), &record).await?, record));
    }
    let stale = owned(cx, &alice, "stale")?;
    let stale = Record {
        expires_at: cx.now() - cx.moment(),
        ..stale
    };
    store.create(cx.token(), &stale).await?;
    store
        .create(cx.token(), &owned(cx, &cx.subject("bob"), "")?)
        .await?;
    store.create(cx.token(), &cx.record("nobody's")).await?;

    let tokens: Vec<_> = sessions.iter().map(|(token, _)| token).collect();
    lists(cx, "with five live sessions", &store, &alice, &tokens).await?;
    lists(cx, "on another handle", &other, &alice, &tokens).await?;
    let found = listed(cx, &store, &alice).await?;
    for session in &found {
        let Some((_, record)) = sessions
            .iter()
            .find(|(token, _)| token.key() == session.key)
        else {
            return Err(Failure::new("keys of sessions that exist", "another key"));
        };
        cx.equal(
            "the label is",
            &session.label.as_str(),
            &record.label.as_str(),
        )?;
        cx.equal("the beginning is", &session.created_at, &record.created_at)?;
        cx.equal("the expiry is", &session.expires_at, &record.expires_at)?;
        for bytes in [
            session.key.as_bytes().to_vec(),
            session.key.to_hex().into_bytes(),
        ] {
            let forged = Token::from_bytes(bytes, cx.cookie());
            cx.absent("of a token made of a key in the list", &store, &forged)
                .await?;
        }
    }
    let few = cx.ok("list", index(&store)?.list(&alice, None, 2).await)?;
    cx.check(
        few[..] == found[..2],
        "the first two of the list",
        format_args!("{} sessions", few.len()),
    )?;
    let none = cx.ok("list", index(&store)?.list(&alice, None, 0).await)?;
    cx.equal("a list of at most 0 sessions has", &none.len(), &0)
}

async fn n02_paging_shows_what_stays_exactly_once(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let alice = cx.subject("alice");
    let mut coming = Vec::new();
    let mut staying = Vec::new();
    for number in 0..60 {
        let token = store.create(cx.token(), &owned(cx, &alice, "")?).await?;
        if number % 2 == 0 {
            staying.push(token.key());
        } else {
            coming.push(token);
        }
    }
    for limit in [1, 7] {
        let mut seen: Vec<StoreKey> = Vec::new();
        let mut after = None;
        loop {
            let page = index(&store)?.list(&alice, after.as_ref(), limit).await;
            let page = cx.ok("list", page)?;
            cx.check(
                page.len() <= limit,
                format_args!("a page of {limit}"),
                page.len(),
            )?;
            let Some(last) = page.last() else { break };
            after = Some(last.key);
            seen.extend(page.iter().map(|session| session.key));
            // While the list is read, sessions end and others begin.
            if let Some(token) = coming.pop() {
                store.delete(&token, None).await?;
            }
            store.create(cx.token(), &owned(cx, &alice, "new")?).await?;
            if seen.len() > 1000 {
                return Err(Failure::new(
                    "a list that ends",
                    "1000 sessions of about 60",
                ));
            }
        }
        let different: HashSet<_> = seen.iter().collect();
        cx.equal(
            "no session appears twice; the list has",
            &seen.len(),
            &different.len(),
        )?;
        let missed = staying
            .iter()
            .filter(|key| !different.contains(key))
            .count();
        cx.equal(
            "the sessions that live all the time and are missing are",
            &missed,
            &0,
        )?;
        let ascending = seen.windows(2).all(|pair| pair[0] < pair[1]);
        cx.check(ascending, "keys in ascending order", "another order")?;
    }
    Ok(())
}

async fn n03_the_index_follows_every_write(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let (alice, bob) = (cx.subject("alice"), cx.subject("bob"));
    let anonymous = cx.record("hello");
    let token = store.create(cx.token(), &anonymous).await?;
    lists(cx, "without a subject", &store, &alice, &[]).await?;

    let of_alice = Record {
        subject: Some(alice.clone()),
        ..cx.changed(&anonymous, "alice's")
    };
    store.update(&token, anonymous.revision, &of_alice).await?;
    lists(cx, "after the subject was set", &store, &alice, &[&token]).await?;
    let of_bob = Record {
        subject: Some(bob.clone()),
        ..cx.changed(&of_alice, "bob's")
    };
    store.update(&token, of_alice.revision, &of_bob).await?;
    lists(
        cx,
        "after the subject changed, for the old one",
        &store,
        &alice,
        &[],
    )
    .await?;
    lists(
        cx,
        "after the subject changed, for the new one",
        &store,
        &bob,
        &[&token],
    )
    .await?;

    let next = cx.changed(&of_bob, "renewed");
    store.renew(&token, of_bob.revision, &next).await?;
    lists(cx, "after a renewal", &store, &bob, &[&token]).await?;
    let later = next.expires_at + cx.moment();
    store.touch(&token, later).await?;
    let found = listed(cx, &store, &bob).await?;
    let expiries: Vec<_> = found.iter().map(|session| session.expires_at).collect();
    cx.equal(
        "after a touch, the expiry in the list is",
        &expiries,
        &vec![later],
    )?;

    let touched = Record {
        expires_at: later,
        ..next
    };
    let nobodys = Record {
        subject: None,
        ..cx.changed(&touched, "nobody's")
    };
    store.update(&token, touched.revision, &nobodys).await?;
    lists(cx, "after the subject was removed", &store, &bob, &[]).await?;

    let gone = store.create(cx.token(), &owned(cx, &bob, "")?).await?;
    store.delete(&gone, None).await?;
    lists(cx, "after delete", &store, &bob, &[]).await?;
    let record = owned(cx, &bob, "")?;
    let gone = store.create(cx.token(), &record).await?;
    store.delete(&gone, Some(record.revision)).await?;
    lists(cx, "after delete at a revision", &store, &bob, &[]).await?;
    let brief = Record {
        subject: Some(bob.clone()),
        ..cx.record_for("brief", cx.moment())
    };
    store.create(cx.token(), &brief).await?;
    cx.pass_until(brief.expires_at + cx.margin()).await;
    lists(cx, "after the expiry", &store, &bob, &[]).await
}

async fn n04_revoking_ends_what_it_names_and_nothing_else(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let alice = cx.subject("Alice");
    let near = [
        "alice", "Alice ", "ALICE", "Alic", "Alice%", "%", "Al_ce", "*",
    ];
    let mut others = Vec::new();
    for name in near {
        // The name comes last, so that it begins or ends another one.
        let subject = Subject::new(format!("{}-{name}", cx.namespace()))?;
        let record = owned(cx, &subject, "")?;
        others.push((store.create(cx.token(), &record).await?, record));
    }
    let alice = Subject::new(format!(
        "{}-Alice",
        alice.as_str().rsplit('-').next().unwrap_or("")
    ))?;
    let mut mine = Vec::new();
    for _ in 0..6 {
        mine.push(store.create(cx.token(), &owned(cx, &alice, "")?).await?);
    }
    let stale = Record {
        expires_at: cx.now() - cx.moment(),
        ..owned(cx, &alice, "")?
    };
    store.create(cx.token(), &stale).await?;

    let (stranger, unknown) = (cx.subject("stranger"), cx.token().key());
    let revoke = index(&store)?;
    let not = cx.ok("revoke", revoke.revoke(&stranger, &mine[0].key()).await)?;
    cx.equal(
        "whether somebody else's session was revoked is",
        &not,
        &false,
    )?;
    let not = cx.ok("revoke", revoke.revoke(&alice, &unknown).await)?;
    cx.equal("whether an unknown session was revoked is", &not, &false)?;
    cx.check(
        store.load(&mine[0]).await?.is_some(),
        "a session that was not revoked",
        "None",
    )?;
    let done = cx.ok("revoke", revoke.revoke(&alice, &mine[0].key()).await)?;
    cx.equal("whether a session was revoked is", &done, &true)?;
    cx.absent("of a session that was revoked", &store, &mine[0])
        .await?;
    let again = cx.ok("revoke", revoke.revoke(&alice, &mine[0].key()).await)?;
    cx.equal("whether a session was revoked twice is", &again, &false)?;

    let except = mine[1].key();
    let revoked = cx.ok("revoke_all", revoke.revoke_all(&alice, Some(&except)).await)?;
    cx.equal("the sessions that were revoked are", &revoked, &4)?;
    for token in &mine[2..] {
        cx.absent("after revoke_all", &store, token).await?;
    }
    cx.check(
        store.load(&mine[1]).await?.is_some(),
        "the session that was spared",
        "None",
    )?;
    lists(cx, "after revoke_all but one", &store, &alice, &[&mine[1]]).await?;
    let revoked = cx.ok("revoke_all", revoke.revoke_all(&alice, None).await)?;
    cx.equal("the sessions that were revoked at last are", &revoked, &1)?;
    cx.absent("after revoke_all", &store, &mine[1]).await?;
    for (token, record) in &others {
        cx.holds("of another subject after revoke_all", &store, token, record)
            .await?;
    }
    Ok(())
}

async fn n05_revoking_everything_is_not_outrun(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    for round in 0..20 {
        let alice = cx.subject(&format!("alice{round}"));
        let mut tokens = Vec::new();
        let mut calls = Vec::new();
        for number in 0..6 {
            let first = owned(cx, &alice, "")?;
            let token = store.create(cx.token(), &first).await?;
            tokens.push(token.clone());
            let changes = [(); 3].map(|()| cx.changed(&first, "changed"));
            let later = first.expires_at + cx.moment();
            let store = Arc::clone(&store);
            calls.push(
                async move {
                    if number % 3 == 0 {
                        return store.touch(&token, later).await.map(drop);
                    }
                    let mut expected = first.revision;
                    for change in &changes {
                        store.renew(&token, expected, change).await?;
                        expected = change.revision;
                    }
                    Ok(())
                }
                .boxed(),
            );
        }
        let (revoking, subject) = (Arc::clone(&other), alice.clone());
        calls.push(
            async move {
                match revoking.subjects() {
                    Some(index) => index.revoke_all(&subject, None).await.map(drop),
                    None => Err(ErrorKind::Unsupported.into()),
                }
            }
            .boxed(),
        );
        let mut answers = cx.race(calls).await?;
        if let Some(revoked) = answers.pop() {
            cx.ok("revoke_all beside renewals", revoked)?;
        }
        for answer in answers.into_iter().filter(Result::is_err) {
            cx.err(
                "touch or renew beside revoke_all",
                ErrorKind::Missing,
                answer,
            )?;
        }
        cx.settle().await;
        for token in &tokens {
            cx.absent("after revoke_all, which renewals ran beside", &store, token)
                .await?;
        }
        lists(cx, "after revoke_all beside renewals", &store, &alice, &[]).await?;
    }
    Ok(())
}

async fn n06_a_store_without_an_index_keeps_the_subject(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let record = owned(cx, &cx.subject("alice"), "a browser")?;
    let token = store.create(cx.token(), &record).await?;
    cx.holds("with a subject and a label", &store, &token, &record)
        .await
}

async fn n07_revoking_everything_ends_while_the_subject_signs_in(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let alice = cx.subject("alice");
    let mut before = Vec::new();
    for _ in 0..20 {
        let token = store.create(cx.token(), &owned(cx, &alice, "")?).await?;
        before.push(token);
    }
    let revoked = Arc::new(AtomicBool::new(false));
    let record = owned(cx, &alice, "new")?;
    let begun = Arc::new(Barrier::new(5));
    let sign_ins: Vec<_> = (0..4)
        .map(|_| {
            let (store, revoked) = (Arc::clone(&store), Arc::clone(&revoked));
            let (record, cookie) = (record.clone(), cx.cookie().clone());
            let begun = Arc::clone(&begun);
            tokio::spawn(async move {
                begun.wait().await;
                while !revoked.load(Ordering::SeqCst) {
                    let token = Token::random(&OsEntropy, &cookie)?;
                    store.create(token, &record).await?;
                    // A few hundred a second, which is many for one person.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Ok::<_, Error>(())
            })
        })
        .collect();
    begun.wait().await;
    let call = index(&other)?.revoke_all(&alice, None);
    let answer = in_time(cx, "revoke_all beside sign-ins", call).await;
    revoked.store(true, Ordering::SeqCst);
    for signed_in in sign_ins {
        let signed_in = signed_in
            .await
            .map_err(|error| Failure::error(error.to_string()))?;
        cx.ok("create beside revoke_all", signed_in)?;
    }
    if let Err(error) = answer? {
        // It could not keep up, and says so.
        cx.err_in("revoke_all beside sign-ins", &GONE, Err::<(), _>(error))?;
        return Ok(());
    }
    cx.settle().await;
    for token in &before {
        cx.absent("after revoke_all, which sign-ins ran beside", &store, token)
            .await?;
    }
    Ok(())
}
