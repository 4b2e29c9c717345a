use std::collections::{HashMap, HashSet};

use sessionkit::{Entropy, Error, ErrorKind, OsEntropy, Result, Token};

use super::case;
use crate::{Case, Context, Failure, Outcome, verdict::ended};

pub(super) const CASES: &[Case] = &[
    case!(Key k01_tokens_that_differ_in_letter_case_are_two_sessions [Server]
        "Two tokens are equal when their bytes are"
        "A collation that ignores case gives one user the session of another."),
    case!(Key k02_padding_does_not_lead_to_a_session [Server]
        "Two tokens are equal when their bytes are"
        "A backend that pads or trims keys finds a session under an id that was never given out."),
    case!(Key k03_a_token_that_begins_another_is_independent [Server]
        "Two tokens are equal when their bytes are"
        "A search by prefix reads or deletes the sessions of others."),
    case!(Key k04_hostile_tokens_reach_nothing [Server]
        "under a key that cannot hold a path, a quote or a wildcard"
        "A cookie names a file or a row that is no session (CVE-2024-3400, CherryPy CVE-2008-0252)."),
    case!(Key k05_tokens_are_unique_and_evenly_distributed []
        "The length of a random token, in bytes: 128 bits of id and 128 bits of secret."
        "Tokens that can be guessed are sessions that can be stolen."),
    case!(Key k06_without_randomness_there_is_no_token []
        "[`ErrorKind::Unavailable`] when the source of randomness fails."
        "A fallback token is the same for everybody (fiber, CVE-2025-66565)."),
    case!(Key k07_every_token_finds_its_own_record []
        "A server-side store returns the token it was given; a client-side store returns one that contains the record."
        "Two tokens share a row, and one user sees the session of another."),
    case!(Key k08_long_and_short_tokens_are_keys_like_any_other [Server]
        "A server-side store returns the token it was given"
        "A key column that is too short cuts ids until two of them are the same."),
    case!(Key k09_tokens_with_one_id_name_one_record [Server]
        "Tokens of one key name one record, whatever else differs in them."
        "A renewal gives the session a new secret, and the store does not find it any more."),
    case!(Key k10_tokens_that_differ_in_the_id_are_two_sessions [Server]
        "The store files the record under [`key`](Self::key), which depends on the id alone"
        "Two ids that differ in a few bits open one session."),
    case!(Key k40_keys_that_begin_or_end_alike_are_two_sessions [Server]
        "under a key that cannot hold a path, a quote or a wildcard"
        "An index on the first bytes of a key, or a name that is cut, gives one user the session of another."),
];

/// Tokens of readable bytes, as a store would meet them that files records under the token itself.
/// None of them has the length of a random token, so that all of its bytes are the id.
fn spelled(cx: &Context, text: impl AsRef<[u8]>) -> Token {
    Token::from_bytes(text.as_ref().to_vec(), cx.cookie())
}

/// A random text that tokens of this case begin with.
fn stem(cx: &Context) -> String {
    (0..24)
        .map(|_| char::from(b'a' + cx.random().below(26) as u8))
        .collect()
}

/// Creates a record under the first token and checks that none of the others leads to it.
async fn stand_apart(cx: &Context, own: &Token, others: &[(&str, Token)]) -> Outcome {
    let store = cx.open().await?;
    let record = cx.record("own");
    store.create(own.clone(), &record).await?;
    for (what, other) in others {
        cx.absent(&format!("of the token {what}"), &store, other)
            .await?;
        let touched = store.touch(other, record.expires_at).await;
        cx.err(
            &format!("touch of the token {what}"),
            ErrorKind::Missing,
            touched,
        )?;
        let theirs = cx.record(what.as_bytes().to_vec());
        let created = store.create(other.clone(), &theirs).await;
        cx.ok(&format!("create of the token {what}"), created)?;
        cx.holds(&format!("of the token {what}"), &store, other, &theirs)
            .await?;
        cx.holds("of the first token", &store, own, &record).await?;
        cx.ok("delete", ended(store.delete(other, None).await))?;
        cx.holds("of the first token after that", &store, own, &record)
            .await?;
    }
    Ok(())
}

async fn k01_tokens_that_differ_in_letter_case_are_two_sessions(cx: &Context) -> Outcome {
    let stem = stem(cx);
    let mixed = format!("A{}", &stem[1..]);
    let others = [
        ("in capitals", spelled(cx, stem.to_uppercase())),
        ("with one capital", spelled(cx, mixed)),
    ];
    stand_apart(cx, &spelled(cx, &stem), &others).await
}

async fn k02_padding_does_not_lead_to_a_session(cx: &Context) -> Outcome {
    let stem = stem(cx);
    let with = |before: &str, after: &str| spelled(cx, format!("{before}{stem}{after}"));
    let others = [
        ("with a space behind", with("", " ")),
        ("with a space before", with(" ", "")),
        ("with a NUL behind", with("", "\0")),
        ("with padding behind", with("", "=")),
        ("with a line end behind", with("", "\n")),
    ];
    stand_apart(cx, &spelled(cx, &stem), &others).await
}

async fn k03_a_token_that_begins_another_is_independent(cx: &Context) -> Outcome {
    let stem = stem(cx);
    let others = [
        ("that is longer", spelled(cx, format!("{stem}x"))),
        ("that is shorter", spelled(cx, &stem[..23])),
        ("with a separator", spelled(cx, format!("{stem}:1"))),
        (
            "that begins alike",
            spelled(cx, format!("{}zzzzzzzz", &stem[..16])),
        ),
    ];
    stand_apart(cx, &spelled(cx, &stem), &others).await
}

async fn k04_hostile_tokens_reach_nothing(cx: &Context) -> Outcome {
    let foreign = cx.foreign().await;
    let others = [
        ("of a path", spelled(cx, "../../../../../../etc/passwd")),
        ("of another path", spelled(cx, "..\\..\\windows")),
        ("of the directory", spelled(cx, ".")),
        ("of a wildcard", spelled(cx, "*")),
        ("of another wildcard", spelled(cx, "%")),
        ("of a query", spelled(cx, "' OR '1'='1")),
        ("of a command", spelled(cx, "x\r\nFLUSHALL\r\n")),
        ("without a byte", spelled(cx, "")),
        ("with a NUL", spelled(cx, "a\0b")),
    ];
    stand_apart(cx, &cx.token(), &others).await?;
    match foreign {
        Ok(before) => cx.equal("what lives beside is", &cx.foreign().await?, &before),
        Err(_) => Ok(()),
    }
}

async fn k05_tokens_are_unique_and_evenly_distributed(cx: &Context) -> Outcome {
    const TOKENS: usize = 100_000;
    let mut seen = HashSet::with_capacity(TOKENS);
    let mut counts = [0_u32; 256];
    for _ in 0..TOKENS {
        let token = cx.harness().make_token(&OsEntropy, cx.cookie())?;
        if token.expose().len() != Token::LEN {
            return cx.equal(
                "the length of a token is",
                &token.expose().len(),
                &Token::LEN,
            );
        }
        token
            .expose()
            .iter()
            .for_each(|byte| counts[usize::from(*byte)] += 1);
        let first: [u8; 16] = *token.expose().first_chunk().expect("a token has 32 bytes");
        seen.insert(first);
    }
    cx.equal("the number of different tokens is", &seen.len(), &TOKENS)?;
    let expected = (TOKENS * Token::LEN) as f64 / 256.0;
    let chi: f64 = counts
        .iter()
        .map(|count| (f64::from(*count) - expected).powi(2) / expected)
        .sum();
    // 255 degrees of freedom: beyond 400 once in more than ten million runs.
    cx.check(
        chi < 400.0,
        "bytes that are evenly distributed",
        format_args!("chi-square {chi:.0}"),
    )
}

#[derive(Debug)]
struct NoEntropy;

impl Entropy for NoEntropy {
    fn fill(&self, _bytes: &mut [u8]) -> Result<()> {
        Err(Error::from(ErrorKind::Unavailable))
    }
}

async fn k06_without_randomness_there_is_no_token(cx: &Context) -> Outcome {
    let made = cx.harness().make_token(&NoEntropy, cx.cookie());
    cx.err("a token without randomness", ErrorKind::Unavailable, made)
}

async fn k07_every_token_finds_its_own_record(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let mut records = Vec::new();
    for number in 0..200 {
        let record = cx.record(format!("record {number}"));
        let created = store.create(cx.token(), &record).await;
        records.push((cx.ok("create of a random token", created)?, record));
    }
    for (token, record) in &records {
        cx.holds("of one of 200 tokens", &store, token, record)
            .await?;
    }
    Ok(())
}

async fn k08_long_and_short_tokens_are_keys_like_any_other(cx: &Context) -> Outcome {
    let long = "x".repeat(4096);
    let others = [
        ("of one byte", spelled(cx, "x")),
        ("of 255 bytes", spelled(cx, &long[..255])),
        ("of 4095 bytes", spelled(cx, &long[..4095])),
        ("of 4097 bytes", spelled(cx, format!("{long}y"))),
    ];
    stand_apart(cx, &spelled(cx, &long), &others).await
}

/// A token of this id and this secret.
fn composed(cx: &Context, id: &[u8], secret: &[u8]) -> Token {
    Token::from_bytes([id, secret].concat(), cx.cookie())
}

async fn k09_tokens_with_one_id_name_one_record(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let first = cx.token();
    let id = &first.expose()[..Token::ID_LEN];
    let [second, third] = [(); 2].map(|()| composed(cx, id, &cx.token().expose()[Token::ID_LEN..]));
    let mut record = cx.record("first");
    record.subject = Some(cx.subject("alice"));
    store.create(first.clone(), &record).await?;
    for handle in [&store, &other] {
        cx.holds("by another secret", handle, &second, &record)
            .await?;
        let created = handle.create(third.clone(), &cx.record("third")).await;
        cx.err(
            "create with a live id and another secret",
            ErrorKind::Exists,
            created,
        )?;
    }
    let renewed = cx.changed(&record, "renewed");
    let updated = store.renew(&second, record.revision, &renewed).await;
    cx.ok("renew by another secret", updated)?;
    cx.settle().await;
    for token in [&first, &second, &third] {
        cx.holds("after renew", &other, token, &renewed).await?;
    }
    if let (Some(index), Some(subject)) = (store.subjects(), &renewed.subject) {
        let listed = cx.ok("list", index.list(subject, None, 10).await)?;
        let keys: Vec<_> = listed.iter().map(|session| session.key).collect();
        let expected = vec![first.key()];
        cx.check(keys == expected, "one session in the list", keys.len())?;
    }
    let deleted = other.delete(&third, Some(renewed.revision)).await;
    cx.ok("delete by another secret", ended(deleted))?;
    cx.settle().await;
    for token in [&first, &second, &third] {
        cx.absent("after delete by another secret", &store, token)
            .await?;
    }
    Ok(())
}

async fn k10_tokens_that_differ_in_the_id_are_two_sessions(cx: &Context) -> Outcome {
    let own = cx.token();
    let (id, secret) = own.expose().split_at(Token::ID_LEN);
    let differing = (0..Token::ID_LEN).map(|at| {
        let mut near = id.to_vec();
        near[at] ^= 1;
        (at, composed(cx, &near, secret))
    });
    let others: Vec<_> = differing
        .map(|(at, token)| (format!("with another byte {at}"), token))
        .collect();
    let others: Vec<_> = others
        .iter()
        .map(|(what, token)| (what.as_str(), token.clone()))
        .collect();
    stand_apart(cx, &own, &others).await
}

/// How many tokens are tried: about twelve pairs of them have keys that agree in three bytes.
const TRIES: usize = 20_000;

/// Two tokens whose keys agree in three bytes from `at` on.
fn related(cx: &Context, at: usize) -> Outcome<[Token; 2]> {
    let mut seen = HashMap::with_capacity(TRIES);
    for _ in 0..2 * TRIES {
        let token = cx.token();
        let bytes: [u8; 3] = std::array::from_fn(|byte| token.key().as_bytes()[at + byte]);
        if let Some(before) = seen.insert(bytes, token.clone()) {
            return Ok([before, token]);
        }
    }
    Err(Failure::error("no two keys agree in three bytes"))
}

async fn k40_keys_that_begin_or_end_alike_are_two_sessions(cx: &Context) -> Outcome {
    for (what, at) in [("whose key begins alike", 0), ("whose key ends alike", 29)] {
        let [own, other] = related(cx, at)?;
        stand_apart(cx, &own, &[(what, other)]).await?;
        let [own, other] = related(cx, at)?;
        listed_apart(cx, what, &own, &other).await?;
    }
    Ok(())
}

/// Each of two sessions of a subject is listed, passed over and revoked alone.
async fn listed_apart(cx: &Context, what: &str, own: &Token, other: &Token) -> Outcome {
    let store = cx.open().await?;
    let Some(index) = store.subjects() else {
        return Ok(());
    };
    let subject = cx.subject(&format!("alice{}", cx.random().next()));
    let mut record = cx.record("hello");
    record.subject = Some(subject.clone());
    let mut keys = [own.key(), other.key()];
    keys.sort();
    for token in [own, other] {
        store.create(token.clone(), &record).await?;
    }
    let mut pages = Vec::new();
    for after in [None, Some(&keys[0]), Some(&keys[1])] {
        let page = cx.ok("list", index.list(&subject, after, 1).await)?;
        pages.extend(page.iter().map(|session| session.key.to_hex()));
    }
    let expected = keys.map(|key| key.to_hex()).to_vec();
    cx.equal(
        &format!("with a session {what}, the pages are"),
        &pages,
        &expected,
    )?;
    let revoked = cx.ok("revoke", index.revoke(&subject, &own.key()).await)?;
    cx.equal("whether the session was live is", &revoked, &true)?;
    cx.settle().await;
    cx.absent("after revoke", &store, own).await?;
    let when = format!("of a session {what}, after revoke of the other");
    cx.holds(&when, &store, other, &record).await?;
    store.create(own.clone(), &record).await?;
    let revoked = index.revoke_all(&subject, Some(&other.key())).await;
    cx.equal(
        "the sessions that were revoked are",
        &cx.ok("revoke_all", revoked)?,
        &1,
    )?;
    cx.settle().await;
    cx.absent("after revoke_all", &store, own).await?;
    let when = format!("of a session {what}, which was to be spared");
    cx.holds(&when, &store, other, &record).await
}
