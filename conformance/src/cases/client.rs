use std::collections::HashSet;

use sessionkit::{
    CookieName, CookieOptions, ErrorKind, Key, Keyring, Record, SessionConfig, SessionStore, Token,
};

use super::case;
use crate::{
    Case, Context, Outcome,
    browser::{Browser, manager},
};

pub(super) const CASES: &[Case] = &[
    case!(random Client y01_a_token_that_was_changed_is_none [Client]
        "A client-side store answers `Ok(None)` to a token that it has not sealed itself, whatever is wrong with it."
        "A user gives himself the rights of an administrator."),
    case!(random Client y02_what_was_never_sealed_is_none [Client]
        "A client-side store answers `Ok(None)` to a token that it has not sealed itself, whatever is wrong with it."
        "A fallback for old or unsigned cookies lets everybody in (Rack, CVE-2026-39324)."),
    case!(Client y03_a_token_is_worthless_elsewhere [Client]
        "A client-side store puts the sealed record into the token it returns, and authenticates the [`cookie`](Self::cookie) with it."
        "A cookie of one tenant or purpose is accepted in place of another (CVE-2021-41263)."),
    case!(Client y04_the_expiry_is_inside_the_seal [Client]
        "A record is *live* from the `Ok` of the [`create`](Self::create) that stored it until"
        "A stolen cookie works for ever, because only the browser forgets it (aiohttp, CVE-2018-1000814)."),
    case!(Client y05_the_newest_key_seals_and_a_removed_one_opens_nothing [Client]
        "the newest writes, every one reads"
        "Keys cannot be changed without logging everybody out, or a leaked one works for ever."),
    case!(Client y06_a_cookie_that_no_browser_takes_is_an_error [Client]
        "Lets a value that is too long for one cookie take up to `max_chunks` cookies, 1 to 16. One by default"
        "The browser drops or cuts the cookie silently, and the session is lost."),
    case!(Client y07_no_two_seals_are_alike [Client]
        "one for AES-256-GCM (NIST SP 800-38D) with random 96-bit nonces"
        "A nonce that repeats gives the contents and the key of the seal away."),
    case!(Client y08_what_a_client_keeps_cannot_be_taken_back_unseen [Client]
        "[`Unsupported`](crate::ErrorKind::Unsupported) from a client-side store that cannot take back what the client holds."
        "A logout is reported as done, and the copied cookie still works (fastify, CVE-2024-31999)."),
    case!(Client y09_weak_keys_are_refused_and_bad_tokens_look_alike [Client]
        "they are evidently not random: text in any script and encoding, repetition, a counter."
        "A key that can be guessed signs every session; an answer that differs tells an attacker what to try."),
];

async fn sealed(cx: &Context, store: &dyn SessionStore, data: &str) -> Outcome<(Token, Record)> {
    let record = cx.record(data.to_owned());
    Ok((store.create(cx.token(), &record).await?, record))
}

fn token(cx: &Context, bytes: impl Into<Vec<u8>>) -> Token {
    Token::from_bytes(bytes.into(), cx.cookie())
}

async fn y01_a_token_that_was_changed_is_none(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let (good, record) = sealed(cx, &store, "hello, this is the session").await?;
    cx.holds("of the token", &store, &good, &record).await?;
    let bytes = good.expose();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        cx.absent(
            &format!("with bit {bit} flipped"),
            &store,
            &token(cx, flipped),
        )
        .await?;
    }
    for len in 0..bytes.len() {
        cx.absent(
            &format!("of the first {len} bytes"),
            &store,
            &token(cx, &bytes[..len]),
        )
        .await?;
    }
    for tail in [&b"\0"[..], b"x", bytes] {
        let longer = [bytes, tail].concat();
        cx.absent("of a longer token", &store, &token(cx, longer))
            .await?;
    }
    let (other, _) = sealed(cx, &store, "HELLO, THIS IS THE SESSION").await?;
    for cut in 1..bytes.len().min(other.expose().len()) {
        let mixed = [&bytes[..cut], &other.expose()[cut..]].concat();
        if mixed != bytes && mixed != other.expose() {
            cx.absent("of halves of two tokens", &store, &token(cx, mixed))
                .await?;
        }
    }
    let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
    cx.absent("of the token backwards", &store, &token(cx, reversed))
        .await
}

async fn y02_what_was_never_sealed_is_none(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let (good, record) = sealed(cx, &store, "hello").await?;
    let mut never = vec![
        Vec::new(),
        b"hello".to_vec(),
        br#"{"user":"admin"}"#.to_vec(),
        b"eyJhbGciOiJub25lIn0.eyJ1c2VyIjoiYWRtaW4ifQ.".to_vec(),
        vec![0; 100],
        cx.random().bytes(100),
        cx.random().bytes(5000),
        crate::broken::plain(&record),
    ];
    // The format and key id of a genuine token, with contents that nobody has sealed.
    for len in [1, 9, 21] {
        let head = &good.expose()[..len.min(good.expose().len())];
        never.push([head, &crate::broken::plain(&record)].concat());
        never.push([head, &cx.random().bytes(64)].concat());
    }
    for bytes in never {
        cx.absent("of bytes that were never sealed", &store, &token(cx, bytes))
            .await?;
    }
    // A store whose keys somebody else has.
    let elsewhere = cx.open_in(&format!("{}_b", cx.namespace())).await?;
    let (theirs, _) = sealed(cx, &elsewhere, "theirs").await?;
    cx.absent("of a token sealed under other keys", &store, &theirs)
        .await
}

async fn y03_a_token_is_worthless_elsewhere(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let (good, record) = sealed(cx, &store, "hello").await?;
    for name in ["id", "__Host-admin", "__Secure-id", "__host-id"] {
        let moved = Token::from_bytes(good.expose().to_vec(), &CookieName::new(name)?);
        cx.absent(&format!("in the cookie {name}"), &store, &moved)
            .await?;
        let touched = store.touch(&moved, record.expires_at).await;
        cx.err(
            &format!("touch in the cookie {name}"),
            ErrorKind::Missing,
            touched,
        )?;
    }
    let tenant = cx.open_in(&format!("{}_tenant", cx.namespace())).await?;
    cx.absent("in another namespace", &tenant, &good).await?;
    let updated = tenant.update(&good, record.revision, &record).await;
    cx.err("update in another namespace", ErrorKind::Missing, updated)?;
    cx.holds("in its own namespace and cookie", &store, &good, &record)
        .await
}

async fn y04_the_expiry_is_inside_the_seal(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let record = cx.record_for("hello", cx.moment());
    let token = store.create(cx.token(), &record).await?;
    let prolonged = store.touch(&token, record.expires_at + cx.moment()).await?;
    cx.pass_until(record.expires_at + cx.margin()).await;
    cx.absent("after the expiry, which the client ignores", &store, &token)
        .await?;
    let touched = store.touch(&token, cx.now() + cx.moment()).await;
    cx.err("touch of an expired token", ErrorKind::Missing, touched)?;
    let updated = store
        .update(&token, record.revision, &cx.record("again"))
        .await;
    cx.err("update of an expired token", ErrorKind::Missing, updated)?;
    let renewed = store
        .renew(&token, record.revision, &cx.record("again"))
        .await;
    cx.err("renew of an expired token", ErrorKind::Missing, renewed)?;
    let expected = Record {
        expires_at: record.expires_at + cx.moment(),
        ..record
    };
    cx.holds(
        "of the token that a touch returned",
        &store,
        &prolonged,
        &expected,
    )
    .await
}

async fn y05_the_newest_key_seals_and_a_removed_one_opens_nothing(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let keyring = cx.keyring()?;
    let first = keyring.ids()[0];
    let (old, record) = sealed(cx, &store, "hello").await?;
    keyring.rotate(Key::generate()?)?;
    cx.holds("under the old key", &store, &old, &record).await?;
    let touched = cx.ok("touch", store.touch(&old, record.expires_at).await)?;
    let changed = cx.changed(&record, "changed");
    let updated = cx.ok(
        "update",
        store.update(&old, record.revision, &changed).await,
    )?;
    keyring.remove(first)?;
    cx.absent("under a removed key", &store, &old).await?;
    cx.holds(
        "of the token that a touch returned",
        &store,
        &touched,
        &record,
    )
    .await?;
    cx.holds(
        "of the token that an update returned",
        &store,
        &updated,
        &changed,
    )
    .await?;
    let next = store.update(&old, record.revision, &changed).await;
    cx.err(
        "update of a token under a removed key",
        ErrorKind::Missing,
        next,
    )
}

async fn y06_a_cookie_that_no_browser_takes_is_an_error(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let keyring = Keyring::new([Key::generate()?])?;
    let configure = |config: SessionConfig| match CookieOptions::new("__Host-id") {
        Ok(cookie) => config.cookie(cookie),
        Err(_) => config,
    };
    let manager = manager(cx, &store, &keyring, configure)?;
    let mut browser = Browser::default();
    browser
        .visit(&manager, |session| session.insert("small", "x"))
        .await?;
    let before = browser.cookie().map(str::to_owned);
    let large = String::from_utf8_lossy(&vec![b'x'; 5000]).into_owned();
    let saved = browser
        .visit(&manager, |session| session.insert("large", &large))
        .await;
    let answer = match saved {
        Ok(()) => "Ok".to_owned(),
        Err(failure) => failure.into_verdict().reason(),
    };
    let refused = answer.contains("TooLarge") && answer.ends_with("; 0 cookies");
    cx.check(
        refused,
        "a session of 5000 bytes is TooLarge and sends no cookie",
        &answer,
    )?;
    cx.check(
        answer.contains("large"),
        "an error that names the largest key",
        &answer,
    )?;
    cx.equal("the cookie is", &browser.cookie(), &before.as_deref())?;
    let small = browser
        .visit(&manager, |session| session.get::<String>("small"))
        .await?;
    cx.equal("after that, the session has", &small, &Some("x".into()))
}

async fn y07_no_two_seals_are_alike(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let (zeros, ones) = (vec![0_u8; 64], vec![0xff_u8; 64]);
    let template = cx.record(zeros.clone());
    let inverted = Record {
        data: ones.into(),
        ..template.clone()
    };
    let mut seen = HashSet::new();
    for _ in 0..2000 {
        let first = store.create(cx.token(), &template).await?;
        let second = store.create(cx.token(), &inverted).await?;
        // Under one nonce, the difference of two sealed texts is the difference of the texts.
        let pairs = first.expose().iter().zip(second.expose());
        let mut run = 0;
        let longest = pairs.fold(0, |longest, (a, b)| {
            run = if a ^ b == 0xff { run + 1 } else { 0 };
            longest.max(run)
        });
        cx.check(
            longest < 32,
            "two seals that have nothing in common",
            "one nonce for both",
        )?;
        for token in [first, second] {
            let fresh = seen.insert(token.expose().to_vec());
            cx.check(
                fresh,
                "a seal that was never seen",
                "the seal of another call",
            )?;
        }
    }
    Ok(())
}

async fn y08_what_a_client_keeps_cannot_be_taken_back_unseen(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let (good, record) = sealed(cx, &store, "hello").await?;
    match store.delete(&good, None).await {
        // A list of revoked sessions is kept.
        Ok(_) => cx.absent("after delete", &store, &good).await?,
        Err(error) => {
            cx.err("delete", ErrorKind::Unsupported, Err::<(), _>(error))?;
            cx.holds("after delete was refused", &store, &good, &record)
                .await?;
        }
    }
    let swept = store.sweep(10).await;
    cx.err("sweep", ErrorKind::Unsupported, swept)?;
    cx.check(
        store.subjects().is_none(),
        "no index by subject",
        "an index",
    )?;
    let swaps = cx.capabilities().compare_and_swap;
    cx.check(
        !swaps,
        "no comparison with copies that others hold",
        "a promise to compare",
    )
}

async fn y09_weak_keys_are_refused_and_bad_tokens_look_alike(cx: &Context) -> Outcome {
    let counter: Vec<u8> = (0..32).collect();
    let weak: [&[u8]; 6] = [
        b"",
        &[7; 16],
        &[0; 32],
        &[1; 64],
        &counter,
        b"correct horse battery staple, yes",
    ];
    for bytes in weak {
        let made = Key::from_bytes(bytes);
        cx.err(
            &format!("a key of {} weak bytes", bytes.len()),
            ErrorKind::InvalidConfig,
            made,
        )?;
    }
    let store = cx.open().await?;
    let (good, record) = sealed(cx, &store, "hello").await?;
    let expired = Record {
        expires_at: cx.now() - cx.moment(),
        ..record.clone()
    };
    let expired = store.create(cx.token(), &expired).await?;
    let mut flipped = good.expose().to_vec();
    flipped[0] ^= 0xff;
    let mut sealed = good.expose().to_vec();
    *sealed.last_mut().expect("a sealed token has bytes") ^= 1;
    let bad = [
        ("an expired token", expired),
        ("a token of another format", token(cx, flipped)),
        ("a token with a wrong seal", token(cx, sealed)),
        ("an empty token", token(cx, Vec::new())),
        ("a token of noise", token(cx, cx.random().bytes(200))),
    ];
    for (what, token) in bad {
        cx.absent(&format!("of {what}"), &store, &token).await?;
        let touched = store.touch(&token, record.expires_at).await;
        cx.err(&format!("touch of {what}"), ErrorKind::Missing, touched)?;
        let updated = store.update(&token, record.revision, &record).await;
        cx.err(&format!("update of {what}"), ErrorKind::Missing, updated)?;
    }
    Ok(())
}
