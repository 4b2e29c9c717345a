//! The index by subject where it is easily wrong: subjects that look alike, long lists, sessions
//! that have changed or gone, damaged records, and backends that fail.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use sessionkit::{
    Label, Record, Result, SessionStore, StoreKey, Subject, SubjectSession, Sweep, Token,
};

use super::{
    case,
    flt::{GONE, in_time, patience, recovered},
    list::{index, listed, lists, owned},
};
use crate::{Case, Context, Failure, Fault, Outcome, RawEntry};

pub(super) const CASES: &[Case] = &[
    case!(parallel List n40_an_index_that_cannot_be_asked_is_an_error_never_empty [Server Subjects]
        "A failing backend is an error, never `Ok(None)`."
        "`Log out everywhere` says that it is done while the database is away, and nobody was logged out."),
    case!(List n41_subjects_that_look_alike_are_different_people [Server Subjects]
        "Subjects are compared byte for byte."
        "Whoever registers a name that a database takes for another one's lists and ends their sessions."),
    case!(List n42_a_page_begins_behind_its_position_whatever_became_of_it [Server Subjects]
        "at most `limit` of them, starting behind `after`."
        "The list of sessions ends or begins anew because the last one of a page was logged out."),
    case!(List n43_hundreds_of_sessions_are_all_listed_and_all_ended [Server Subjects]
        "Ends every session of the subject that was stored before the call, but the one under `except`. Returns how many were live."
        "The hundred-and-first session of an account that was taken over is neither shown nor ended."),
    case!(List n44_revoking_looks_at_the_sessions_as_they_are_now [Server Subjects]
        "Ends one session if it belongs to the subject. Returns whether it was live."
        "A password change ends the session it was made in, or spares the thief's because the exception was odd."),
    case!(List n45_the_index_forgets_what_was_before [Server Subjects]
        "a record is found under the subject of its last write from the `Ok` of that write on, and is not found once it is not live."
        "Whoever used a browser before lists and ends the sessions of whoever uses it now."),
    case!(List n46_an_unreadable_record_stands_in_nobodys_way [Server Subjects]
        "A record that cannot be read stands in nobody's way: the others are listed and ended."
        "One damaged record, and nobody can see or end the sessions of an account."),
];

type Store = Arc<dyn SessionStore>;

/// Creates sessions of a subject, in the order of their keys.
async fn sessions(
    cx: &Context,
    store: &Store,
    subject: &Subject,
    count: usize,
) -> Outcome<Vec<(Token, Record)>> {
    let mut sessions = Vec::new();
    for number in 0..count {
        let record = owned(cx, subject, &format!("browser {number}"))?;
        sessions.push((store.create(cx.token(), &record).await?, record));
    }
    sessions.sort_by_key(|(token, _)| token.key());
    Ok(sessions)
}

async fn session(cx: &Context, store: &Store, subject: &Subject) -> Outcome<(Token, Record)> {
    let record = owned(cx, subject, "a browser")?;
    Ok((store.create(cx.token(), &record).await?, record))
}

/// A session that was the subject's until it expired.
async fn expired(cx: &Context, store: &Store, subject: &Subject) -> Outcome<Token> {
    let (token, _) = session(cx, store, subject).await?;
    let past = cx.now() - cx.moment();
    Ok(store.touch(&token, past).await?)
}

fn keys(sessions: &[SubjectSession]) -> Vec<StoreKey> {
    sessions.iter().map(|session| session.key).collect()
}

/// The keys of a list, in words that can be read.
fn named(keys: &[StoreKey]) -> String {
    let shown = keys.iter().take(4).map(|key| key.to_hex()[..8].to_owned());
    let shown = shown.collect::<Vec<_>>().join(", ");
    match keys.len() {
        0..=4 => format!("{} sessions [{shown}]", keys.len()),
        len => format!("{len} sessions [{shown}, ...]"),
    }
}

/// Exactly these keys, in this order.
fn same(cx: &Context, what: &str, found: &[StoreKey], expected: &[StoreKey]) -> Outcome {
    let actual = format_args!("{}", named(found));
    cx.check(
        found == expected,
        format_args!("{what} {}", named(expected)),
        actual,
    )
}

/// A text, in words that can be read.
fn quoted(text: &str) -> String {
    match text.len() {
        0..=40 => format!("{text:?}"),
        len => {
            let last = text.chars().next_back().unwrap_or_default();
            let first: String = text.chars().take(4).collect();
            format!("\"{first}...\" of {len} bytes that ends with {last:?}")
        }
    }
}

/// Revoking this key ends nothing.
async fn revokes_nothing(
    cx: &Context,
    what: &str,
    store: &Store,
    subject: &Subject,
    key: &StoreKey,
) -> Outcome {
    let revoked = cx.ok("revoke", index(store)?.revoke(subject, key).await)?;
    cx.equal(&format!("whether revoke ended {what} is"), &revoked, &false)
}

/// Revokes everything in one call, and returns how many were ended: on a backend that works, the first
/// call has to be right.
async fn revoke_all(
    cx: &Context,
    when: &str,
    store: &Store,
    subject: &Subject,
    except: Option<&StoreKey>,
) -> Outcome<u64> {
    let ended = index(store)?.revoke_all(subject, except).await;
    cx.ok(&format!("revoke_all {when}"), ended)
}

/// Revoking everything ends so many sessions.
async fn revokes_all(
    cx: &Context,
    when: &str,
    store: &Store,
    subject: &Subject,
    except: Option<&StoreKey>,
    count: u64,
) -> Outcome {
    let ended = revoke_all(cx, when, store, subject, except).await?;
    cx.equal(&format!("{when}, revoke_all ends"), &ended, &count)
}

/// Revokes everything on a backend that has just failed, again while it says that it is not there yet.
/// Returns how many were ended, unless a call that failed may have ended some.
async fn revoke_all_after_a_fault(
    cx: &Context,
    store: &Store,
    subject: &Subject,
) -> Outcome<Option<u64>> {
    let begun = Instant::now();
    let mut failed = false;
    loop {
        match index(store)?.revoke_all(subject, None).await {
            Err(error) if GONE.contains(&error.kind()) && begun.elapsed() < patience(cx) => {
                failed = true;
            }
            answer => {
                let ended = cx.ok("revoke_all when the backend works again", answer)?;
                return Ok((!failed).then_some(ended));
            }
        }
    }
}

/// How many of the calls of the index only read; they come first.
const LISTS: usize = 3;

type Answer = (&'static str, Result<()>);

/// Every call of the index, with and without what it can be given.
fn calls<'a>(
    store: &'a Store,
    subject: &'a Subject,
    [mine, unknown]: &'a [StoreKey; 2],
) -> Outcome<Vec<BoxFuture<'a, Answer>>> {
    let index = index(store)?;
    let answer = |name, call: BoxFuture<'a, Result<()>>| call.map(move |done| (name, done)).boxed();
    let list = |after, limit| index.list(subject, after, limit).map(|list| list.map(drop));
    let revoke = |key| index.revoke(subject, key).map(|done| done.map(drop));
    let revoke_all = |except| index.revoke_all(subject, except).map(|done| done.map(drop));
    Ok(vec![
        answer("list", list(None, usize::MAX).boxed()),
        answer("list of one", list(None, 1).boxed()),
        answer("list behind a session", list(Some(mine), 10).boxed()),
        answer("revoke", revoke(mine).boxed()),
        answer("revoke of an unknown session", revoke(unknown).boxed()),
        answer("revoke_all", revoke_all(None).boxed()),
        answer("revoke_all but one", revoke_all(Some(mine)).boxed()),
        answer(
            "revoke_all but none of theirs",
            revoke_all(Some(unknown)).boxed(),
        ),
    ])
}

async fn n40_an_index_that_cannot_be_asked_is_an_error_never_empty(cx: &Context) -> Outcome {
    const FAULTS: [Fault; 4] = [
        Fault::Down,
        Fault::Hang,
        Fault::LoseReplies,
        Fault::ReadOnly,
    ];
    let store = cx.open().await?;
    let mut missing = Vec::new();
    for fault in FAULTS {
        let alice = cx.subject(&format!("alice {fault:?}"));
        let sessions = sessions(cx, &store, &alice, 3).await?;
        let tokens: Vec<_> = sessions.iter().map(|(token, _)| token).collect();
        let when = format!("before the fault {fault:?}");
        lists(cx, &when, &store, &alice, &tokens).await?;
        let about = [tokens[1].key(), cx.token().key()];
        if let Err(hook) = cx.fault(fault).await {
            missing.push(hook);
            continue;
        }
        let mut calls = calls(&store, &alice, &about)?;
        if fault == Fault::ReadOnly {
            lists(cx, "on a read-only backend", &store, &alice, &tokens).await?;
            calls.drain(..LISTS);
        }
        let answers = join_all(calls);
        for (name, answer) in in_time(cx, "every call of the index", answers).await? {
            let call = format!("{name} on a backend with the fault {fault:?}");
            cx.err_in(&call, &GONE, answer)?;
        }
        cx.fault(Fault::None).await?;
        recovered(cx, &store, tokens[0]).await?;
        // Nothing can have reached a backend that was down, or have changed one that only reads.
        let untouched = matches!(fault, Fault::Down | Fault::ReadOnly);
        if untouched {
            let when = format!("after the fault {fault:?}");
            lists(cx, &when, &store, &alice, &tokens).await?;
        }
        let again = revoke_all_after_a_fault(cx, &store, &alice).await?;
        cx.check(
            again.is_none_or(|again| again == 3 || again < 3 && !untouched),
            "revoke_all ends the 3 sessions that are left, or those of them",
            format_args!("{again:?}"),
        )?;
        for token in tokens {
            cx.absent("after revoke_all was repeated", &store, token)
                .await?;
        }
    }
    match missing.pop() {
        Some(hook) if missing.len() == FAULTS.len() - 1 => Err(hook),
        _ => Ok(()),
    }
}

/// Texts that some database, file system or language takes for each other.
fn alike() -> Vec<String> {
    let texts = [
        // Composed or not, with and without its accent, in either case.
        "\u{e9}",
        "e\u{301}",
        "e",
        "\u{c9}",
        "E\u{301}",
        "E",
        "\u{c5}",
        "\u{212b}",
        "A\u{30a}",
        // The same when compatibility counts, or width.
        "\u{fb01}",
        "fi",
        "\u{ff46}\u{ff49}",
        "\u{2460}",
        "\u{1d7ce}",
        // Case that changes the length, or depends on the language.
        "\u{df}",
        "ss",
        "SS",
        "\u{1e9e}",
        "\u{130}",
        "i\u{307}",
        "i",
        "\u{131}",
        "I",
        "\u{3c3}",
        "\u{3c2}",
        "\u{3a3}",
        // One to collations that know none of them.
        "\u{1f600}",
        "\u{1f601}",
        "\u{10ffff}",
        "\u{10fffe}",
        "\u{ffff}",
        "\u{fffd}",
        // Blanks, and what is not seen.
        "a",
        " a",
        "a ",
        "a  ",
        " a ",
        "a\t",
        "a\n",
        "a\r\n",
        "a\u{a0}",
        "a\u{3000}",
        "a\u{feff}",
        "\u{feff}a",
        "a\u{200b}",
        "a\u{200d}",
        "a\u{ad}",
        " ",
        "  ",
        "\t",
        // The end of a text, to some.
        "a\0",
        "a\0b",
        "a\0\0",
        "\0a",
        "\0",
        "a\u{1a}",
        "a\u{7f}",
        "\u{1}",
        // Numbers, and words that mean nothing.
        "0",
        "-0",
        "00",
        "0.0",
        "1",
        "01",
        "1.0",
        "1e0",
        "0x1",
        "+1",
        "null",
        "NULL",
        "true",
        // One after somebody decoded or unescaped them.
        "a b",
        "a+b",
        "a%20b",
        "a\\b",
        "a\\\\b",
        "a/b",
        "a//b",
        "a/./b",
        "a:b",
        "a&b",
        "a&amp;b",
        "a'b",
        "a''b",
    ];
    let mut texts: Vec<_> = texts.map(String::from).into();
    // Longer than a key, a column or a prefix of an index.
    for len in [63, 64, 65, 127, 128, 129, 190, 191, 192, 250, 254] {
        texts.push("x".repeat(len));
    }
    let longest = |char: &str, last: &str| {
        let chars = (Subject::MAX_LEN - last.len()) / char.len();
        format!("{}{last}", char.repeat(chars))
    };
    texts.extend(["x", "y", "X", " ", "\0"].map(|last| longest("x", last)));
    texts.extend(["a", "b", "\u{e8}"].map(|last| longest("\u{e9}", last)));
    texts.extend(["a", "b"].map(|last| longest("\u{1f600}", last)));
    texts
}

async fn n41_subjects_that_look_alike_are_different_people(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let mut people = Vec::new();
    for text in alike() {
        // An application cannot make some of them any more; older records may have them.
        let subject = Subject::from_stored(&*text)?;
        let mut record = owned(cx, &subject, "")?;
        record.label = Label::from_stored(&text)?;
        // No two began at the same instant.
        record.created_at = cx.now() - cx.moment() * people.len() as u32;
        let created = store.create(cx.token(), &record).await;
        let text = quoted(&text);
        let token = cx.ok(&format!("create with the subject {text}"), created)?;
        people.push((text, subject, token, record));
    }
    for (place, (text, subject, token, record)) in people.iter().enumerate() {
        let found = listed(cx, &store, subject).await?;
        let what = format!("the sessions of the subject {text} are");
        same(cx, &what, &keys(&found), &[token.key()])?;
        let found = &found[0];
        cx.check(
            found.label == record.label,
            format_args!("the label in the list of {text} is the subject"),
            quoted(found.label.as_str()),
        )?;
        cx.equal("the beginning is", &found.created_at, &record.created_at)?;
        cx.equal("the expiry is", &found.expires_at, &record.expires_at)?;
        cx.holds(&format!("with the subject {text}"), &store, token, record)
            .await?;
        for neighbour in [place + 1, place + people.len() - 1] {
            let (other, _, theirs, _) = &people[neighbour % people.len()];
            let what = format!("a session of {other} for {text}");
            revokes_nothing(cx, &what, &store, subject, &theirs.key()).await?;
        }
    }
    // Whoever ends somebody else's session too leaves them none to end.
    for (number, (text, subject, token, _)) in people.iter().enumerate() {
        let when = format!("of the subject {text}");
        if number % 2 == 0 {
            revokes_all(cx, &when, &store, subject, None, 1).await?;
        } else {
            let revoked = index(&store)?.revoke(subject, &token.key()).await;
            let revoked = cx.ok(&format!("revoke {when}"), revoked)?;
            cx.equal(&format!("whether revoke {when} is"), &revoked, &true)?;
        }
        cx.absent(&format!("after the end {when}"), &store, token)
            .await?;
    }
    Ok(())
}

/// The ways in which a session leaves the list of a subject.
const LEAVES: [&str; 5] = [
    "was deleted",
    "was revoked",
    "has expired",
    "is somebody else's now",
    "is nobody's now",
];

async fn leave(
    cx: &Context,
    store: &Store,
    way: &str,
    (token, record): &(Token, Record),
) -> Outcome {
    let owner = |subject| Record {
        subject,
        ..cx.changed(record, "changed")
    };
    match (way, &record.subject) {
        ("was deleted", _) => store.delete(token, None).await.map(drop)?,
        ("was revoked", Some(subject)) => {
            index(store)?
                .revoke(subject, &token.key())
                .await
                .map(drop)?;
        }
        ("has expired", _) => {
            let past = cx.now() - cx.moment();
            store.touch(token, past).await.map(drop)?;
        }
        ("is somebody else's now", _) => {
            let theirs = owner(Some(cx.subject("bob")));
            store.update(token, record.revision, &theirs).await?;
        }
        _ => {
            store.update(token, record.revision, &owner(None)).await?;
        }
    }
    Ok(())
}

async fn n42_a_page_begins_behind_its_position_whatever_became_of_it(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let alice = cx.subject("alice");
    let mut left = sessions(cx, &store, &alice, 16).await?;
    let of = |sessions: &[(Token, Record)]| -> Vec<_> {
        sessions.iter().map(|(token, _)| token.key()).collect()
    };
    for way in LEAVES {
        let page = cx.ok("list", index(&store)?.list(&alice, None, 2).await)?;
        same(cx, "the first page is", &keys(&page), &of(&left[..2]))?;
        let last = left.remove(1);
        leave(cx, &store, way, &last).await?;
        let position = last.0.key();
        let rest = index(&store)?.list(&alice, Some(&position), 100).await;
        let rest = cx.ok("list of the next page", rest)?;
        let what = format!("behind a session that {way}, the list is");
        same(cx, &what, &keys(&rest), &of(&left[1..]))?;
        let again = listed(cx, &store, &alice).await?;
        let what = format!("without the session that {way}, the list is");
        same(cx, &what, &keys(&again), &of(&left))?;
    }
    let (theirs, _) = session(cx, &store, &cx.subject("bob")).await?;
    let mut positions = vec![
        ("the lowest key", StoreKey::from_bytes([0; 32])),
        ("the highest key", StoreKey::from_bytes([255; 32])),
        ("a key that never was", cx.token().key()),
        ("a session of somebody else", theirs.key()),
    ];
    for (token, _) in [&left[0], &left[left.len() / 2], &left[left.len() - 1]] {
        let mut beside = *token.key().as_bytes();
        positions.push(("a session of the list", token.key()));
        beside[31] ^= 1;
        positions.push(("the neighbour of a session", StoreKey::from_bytes(beside)));
    }
    for (what, position) in positions {
        let behind: Vec<_> = left
            .iter()
            .map(|(token, _)| token.key())
            .filter(|key| *key > position)
            .collect();
        let len = behind.len();
        for limit in [0, 1, len.saturating_sub(1), len, len + 1, usize::MAX] {
            let found = index(&store)?.list(&alice, Some(&position), limit).await;
            let found = cx.ok(&format!("list of at most {limit} sessions"), found)?;
            let what = format!("behind {what}, the list of at most {limit} sessions is");
            let expected = &behind[..limit.min(len)];
            same(cx, &what, &keys(&found), expected)?;
        }
    }
    for limit in [0, 1, left.len(), usize::MAX] {
        let found = cx.ok("list", index(&store)?.list(&alice, None, limit).await)?;
        let what = format!("from the start, the list of at most {limit} sessions is");
        let expected = &left[..limit.min(left.len())];
        same(cx, &what, &keys(&found), &of(expected))?;
    }
    Ok(())
}

async fn n43_hundreds_of_sessions_are_all_listed_and_all_ended(cx: &Context) -> Outcome {
    const MANY: usize = 257;
    let store = cx.open().await?;
    let (alice, bob) = (cx.subject("alice"), cx.subject("bob"));
    let mine = sessions(cx, &store, &alice, MANY).await?;
    let theirs = session(cx, &store, &bob).await?;
    for _ in 0..2 {
        expired(cx, &store, &alice).await?;
    }
    let all: Vec<_> = mine.iter().map(|(token, _)| token.key()).collect();
    for limit in [100, 128, 256, MANY, 1000] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = index(&store)?.list(&alice, after.as_ref(), limit).await;
            let page = cx.ok("list", page)?;
            let left = (MANY - seen.len()).min(limit);
            cx.equal(
                &format!("behind {} sessions, a page of {limit} has", seen.len()),
                &page.len(),
                &left,
            )?;
            let Some(last) = page.last() else { break };
            after = Some(last.key);
            seen.extend(page.iter().map(|session| session.key));
        }
        cx.check(
            seen == all,
            format_args!("all sessions in pages of {limit}"),
            "others",
        )?;
    }
    let spared = &mine[MANY / 2];
    let when = format!("of {MANY} sessions but one");
    let except = spared.0.key();
    revokes_all(cx, &when, &store, &alice, Some(&except), MANY as u64 - 1).await?;
    lists(cx, "after revoke_all but one", &store, &alice, &[&spared.0]).await?;
    for (token, _) in mine.iter().filter(|(token, _)| token.key() != except) {
        cx.absent("after revoke_all but one", &store, token).await?;
    }
    cx.holds("that was spared", &store, &spared.0, &spared.1)
        .await?;
    revokes_all(cx, "of the one that was spared", &store, &alice, None, 1).await?;
    revokes_all(cx, "of nothing any more", &store, &alice, None, 0).await?;
    cx.holds("of another subject", &store, &theirs.0, &theirs.1)
        .await
}

/// Another token of the same session, as a renewal makes it.
fn renewed(cx: &Context, token: &Token) -> Token {
    let (id, secret) = (&token.expose()[..Token::ID_LEN], cx.random().bytes(16));
    Token::from_bytes([id, &secret].concat(), cx.cookie())
}

async fn n44_revoking_looks_at_the_sessions_as_they_are_now(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let (alice, bob) = (cx.subject("alice"), cx.subject("bob"));
    let theirs = session(cx, &store, &bob).await?;
    let nobodys = cx.record("nobody's");
    let nobodys = (store.create(cx.token(), &nobodys).await?, nobodys);
    let stale = expired(cx, &store, &alice).await?;
    let (deleted, _) = session(cx, &store, &alice).await?;
    store.delete(&deleted, None).await?;
    let (moved, record) = session(cx, &store, &alice).await?;
    let given = Record {
        subject: Some(bob.clone()),
        ..cx.changed(&record, "given to bob")
    };
    store.update(&moved, record.revision, &given).await?;
    let others = [
        ("somebody else's", theirs),
        ("nobody's", nobodys),
        ("a session that was given away", (moved, given)),
    ];
    let gone = [
        ("an expired session", stale),
        ("a deleted session", deleted),
        ("a session that never was", cx.token()),
    ];
    for (what, (token, record)) in &others {
        revokes_nothing(cx, what, &store, &alice, &token.key()).await?;
        cx.holds(&format!("of {what} after revoke"), &store, token, record)
            .await?;
    }
    for (what, token) in &gone {
        revokes_nothing(cx, what, &store, &alice, &token.key()).await?;
    }

    // The exception may be anything: it spares no other session, and keeps none from ending.
    let exceptions = others.iter().map(|(what, (token, _))| (what, token));
    let exceptions = exceptions.chain(gone.iter().map(|(what, token)| (what, token)));
    for (what, token) in exceptions {
        let mine = sessions(cx, &store, &alice, 2).await?;
        let when = format!("with the exception of {what}");
        revokes_all(cx, &when, &store, &alice, Some(&token.key()), 2).await?;
        for (token, _) in &mine {
            cx.absent(&format!("after revoke_all {when}"), &store, token)
                .await?;
        }
    }
    for (what, (token, record)) in &others {
        cx.holds(
            &format!("of {what} after revoke_all"),
            &store,
            token,
            record,
        )
        .await?;
    }

    // A renewal replaces the secret, and neither the session nor its name.
    let (token, first) = session(cx, &store, &alice).await?;
    let next = renewed(cx, &token);
    let second = cx.changed(&first, "renewed");
    store.renew(&next, first.revision, &second).await?;
    sessions(cx, &store, &alice, 2).await?;
    let except = token.key();
    let when = "with the exception of a renewed session";
    revokes_all(cx, when, &store, &alice, Some(&except), 2).await?;
    cx.holds("that was renewed and spared", &store, &next, &second)
        .await?;
    lists(cx, when, &store, &alice, &[&next]).await?;
    let done = cx.ok("revoke", index(&store)?.revoke(&alice, &except).await)?;
    cx.equal("whether revoke ended a renewed session is", &done, &true)?;
    for token in [&token, &next] {
        cx.absent("after revoke of a renewed session", &store, token)
            .await?;
    }
    revokes_nothing(cx, "a session twice", &store, &alice, &except).await?;
    let (what, (given, _)) = &others[2];
    let done = cx.ok("revoke", index(&store)?.revoke(&bob, &given.key()).await)?;
    let what = format!("whether revoke by its new owner ended {what} is");
    cx.equal(&what, &done, &true)
}

/// A former subject of a record finds and ends nothing, on neither handle.
async fn forgotten(
    cx: &Context,
    when: &str,
    handles: &[&Store],
    subject: &Subject,
    token: &Token,
) -> Outcome {
    cx.settle().await;
    for store in handles {
        lists(
            cx,
            &format!("{when}, for the former subject"),
            store,
            subject,
            &[],
        )
        .await?;
        let what = format!("another one's session {when}");
        revokes_nothing(cx, &what, store, subject, &token.key()).await?;
        let when = format!("of the former subject {when}");
        revokes_all(cx, &when, store, subject, None, 0).await?;
    }
    Ok(())
}

async fn n45_the_index_forgets_what_was_before(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let both = [&store, &other];
    let [alice, bob] = ["alice", "bob"].map(|name| cx.subject(name));
    let of = |record: &Record, subject: Option<&Subject>| Record {
        subject: subject.cloned(),
        ..cx.changed(record, "changed")
    };

    // There and back, and then to nobody.
    let (token, mut record) = session(cx, &store, &alice).await?;
    let owners = [
        ("that has changed hands", &other, Some(&bob), &alice),
        ("that has changed hands back", &store, Some(&alice), &bob),
        ("that is nobody's", &other, None, &alice),
    ];
    for (when, store, owner, former) in owners {
        let next = of(&record, owner);
        store.update(&token, record.revision, &next).await?;
        record = next;
        forgotten(cx, when, &both, former, &token).await?;
        for store in both {
            if let Some(owner) = owner {
                lists(
                    cx,
                    &format!("{when}, for its owner"),
                    store,
                    owner,
                    &[&token],
                )
                .await?;
            }
            cx.holds(when, store, &token, &record).await?;
        }
    }

    // The key of a session that is over, used again by somebody else.
    for way in ["was deleted", "has expired"] {
        let (token, first) = session(cx, &store, &alice).await?;
        leave(cx, &store, way, &(token.clone(), first.clone())).await?;
        let again = of(&first, Some(&bob));
        other.create(token.clone(), &again).await?;
        let when = format!("under a key whose session {way}");
        forgotten(cx, &when, &both, &alice, &token).await?;
        lists(cx, &when, &store, &bob, &[&token]).await?;
        revokes_all(cx, &when, &other, &bob, None, 1).await?;
        cx.settle().await;
        cx.absent(&format!("after revoke_all {when}"), &store, &token)
            .await?;
    }

    // Expiries and labels are those of now.
    let (token, mut record) = session(cx, &store, &alice).await?;
    let first = record.expires_at;
    for expires_at in [first + cx.moment(), first - cx.moment()] {
        other.touch(&token, expires_at).await?;
        record.expires_at = expires_at;
        shows(cx, "after touch", &both, &alice, (&token, &record)).await?;
    }
    let mut next = of(&record, Some(&alice));
    next.label = Label::new("another browser")?;
    other.update(&token, record.revision, &next).await?;
    shows(cx, "after update", &both, &alice, (&token, &next)).await?;
    let past = cx.now() - cx.moment();
    other.touch(&token, past).await?;
    forgotten(cx, "that was touched into the past", &both, &alice, &token).await?;

    // The same token and subject in another namespace.
    let there = cx.open_in(&format!("beside_{}", cx.namespace())).await?;
    let (token, record) = session(cx, &store, &alice).await?;
    let beside = [&there];
    forgotten(cx, "of another namespace", &beside, &alice, &token).await?;
    let theirs = owned(cx, &alice, "theirs")?;
    there.create(token.clone(), &theirs).await?;
    revokes_all(cx, "in another namespace", &there, &alice, None, 1).await?;
    shows(cx, "after that", &both, &alice, (&token, &record)).await?;
    cx.holds(
        "after revoke_all in another namespace",
        &store,
        &token,
        &record,
    )
    .await
}

/// The list has one session, as the record says.
async fn shows(
    cx: &Context,
    when: &str,
    handles: &[&Store],
    subject: &Subject,
    (token, record): (&Token, &Record),
) -> Outcome {
    cx.settle().await;
    for store in handles {
        let found = listed(cx, store, subject).await?;
        let what = format!("{when}, the list is");
        same(cx, &what, &keys(&found), &[token.key()])?;
        let found = &found[0];
        let what = |field| format!("{when}, the {field} in the list is");
        cx.equal(&what("expiry"), &found.expires_at, &record.expires_at)?;
        cx.equal(&what("beginning"), &found.created_at, &record.created_at)?;
        let labels = [&found.label, &record.label].map(Label::as_str);
        cx.equal(&what("label"), &labels[0], &labels[1])?;
    }
    Ok(())
}

/// Makes the record of a session unreadable, and of nothing else what is stored: what its creation
/// has added is the record, or an entry of an index, which holds nothing.
async fn ruin(cx: &Context, before: &[RawEntry], value: &[u8]) -> Outcome {
    let names: Vec<_> = before.iter().map(|entry| &entry.name).collect();
    let mut ruined = 0;
    for entry in cx.raw_dump().await? {
        if !names.contains(&&entry.name) && !entry.value.is_empty() {
            let value = value.to_vec();
            cx.raw_write(&RawEntry { value, ..entry }).await?;
            ruined += 1;
        }
    }
    match ruined {
        0 => Err(Failure::error("a new record leaves no raw entry")),
        _ => Ok(()),
    }
}

async fn n46_an_unreadable_record_stands_in_nobodys_way(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let empty = cx.raw_dump().await?;
    let (alice, bob) = (cx.subject("alice"), cx.subject("bob"));
    for value in [&b"?"[..], &[255; 80]] {
        let mine = sessions(cx, &store, &alice, 6).await?;
        let before = cx.raw_dump().await?;
        let (ruined, _) = session(cx, &store, &alice).await?;
        ruin(cx, &before, value).await?;
        let mut expected: BTreeMap<_, _> = mine.iter().map(|(t, r)| (t.key(), r)).collect();

        // It may be in the list or not: nobody knows whose it was.
        for limit in [1, 3, 100] {
            let (mut seen, mut after) = (Vec::<StoreKey>::new(), None);
            loop {
                let page = index(&store)?.list(&alice, after.as_ref(), limit).await;
                let page = cx.ok("list beside an unreadable record", page)?;
                let Some(last) = page.last() else { break };
                after = Some(last.key);
                seen.extend(page.iter().map(|session| session.key));
                if seen.len() > 7 {
                    break;
                }
            }
            seen.retain(|key| *key != ruined.key());
            let what = format!("in pages of {limit}, the others in the list are");
            let others: Vec<_> = expected.keys().copied().collect();
            same(cx, &what, &seen, &others)?;
        }
        // `load` has a case of its own; that it cannot be read must stay so.
        let touched = store.touch(&mine[0].0, mine[0].1.expires_at).await;
        cx.ok("touch beside an unreadable record", touched)?;
        let (first, _) = &mine[1];
        let revoked = index(&store)?.revoke(&alice, &first.key()).await;
        let revoked = cx.ok("revoke beside an unreadable record", revoked)?;
        cx.equal("whether that ended a session is", &revoked, &true)?;
        expected.remove(&first.key());
        if cx.capabilities().sweep == Sweep::Explicit {
            let stored = cx.stored_names().await;
            let stale = expired(cx, &store, &alice).await?;
            let swept = store.sweep(100).await;
            let swept = cx.ok("sweep beside an unreadable record", swept)?;
            // The unreadable one may count or not.
            cx.check(swept <= 2, "1 expired record is swept", swept)?;
            let what = "the expired records that were swept are";
            cx.swept(what, (swept.min(1), 1), stored.as_ref()).await?;
            cx.absent("after the sweep", &store, &stale).await?;
        }

        let (except, record) = &mine[0];
        let when = "beside an unreadable record";
        let revoked = revoke_all(cx, when, &store, &alice, Some(&except.key())).await?;
        cx.check(
            (4..=5).contains(&revoked),
            "4 sessions are revoked beside an unreadable record",
            revoked,
        )?;
        for (token, _) in &mine[1..] {
            cx.absent("after revoke_all", &store, token).await?;
        }
        cx.holds("that was spared", &store, except, record).await?;
        revokes_all_but(cx, &store, &alice, &ruined).await?;
        cx.absent("after revoke_all at last", &store, except)
            .await?;

        cx.ok(
            "delete of the unreadable record",
            store.delete(&ruined, None).await,
        )?;
        cx.absent("after delete", &store, &ruined).await?;
        let record = owned(cx, &bob, "")?;
        store.create(ruined.clone(), &record).await?;
        lists(
            cx,
            "after delete, for the former subject",
            &store,
            &alice,
            &[],
        )
        .await?;
        lists(
            cx,
            "after delete, for the new one",
            &store,
            &bob,
            &[&ruined],
        )
        .await?;
        revokes_all(cx, "of the new one", &store, &bob, None, 1).await?;
    }
    if cx.capabilities().sweep == Sweep::Explicit {
        cx.ok("sweep", store.sweep(100).await)?;
        let left = cx.raw_dump().await?;
        let names = |entries: &[RawEntry]| entries.iter().map(|e| e.name.clone()).collect();
        let [left, empty]: [Vec<_>; 2] = [names(&left), names(&empty)];
        cx.check(
            left == empty,
            format_args!("{} stored entries when all is swept", empty.len()),
            left.len(),
        )?;
    }
    Ok(())
}

/// Ends what is left, of which one cannot be read.
async fn revokes_all_but(
    cx: &Context,
    store: &Store,
    subject: &Subject,
    unreadable: &Token,
) -> Outcome {
    let when = "beside an unreadable record";
    let revoked = revoke_all(cx, when, store, subject, None).await?;
    cx.check(
        (1..=2).contains(&revoked),
        "the last session is revoked beside an unreadable record",
        revoked,
    )?;
    let left = listed(cx, store, subject).await?;
    let left: Vec<_> = left
        .iter()
        .filter(|session| session.key != unreadable.key())
        .collect();
    cx.equal("the readable sessions that are left are", &left.len(), &0)
}
