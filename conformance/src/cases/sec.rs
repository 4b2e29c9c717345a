use std::{
    collections::{HashMap, HashSet},
    fmt::Write,
    sync::Arc,
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use sessionkit::{
    Error, Key, Keyring, Label, Record, SessionStore, StoreKey, Subject, Sweep, Token,
};
use tracing::instrument::WithSubscriber;

use super::case;
use crate::{
    Case, Context, Fault, Outcome, RawEntry,
    browser::{Browser, manager},
    capture::Capture,
};

pub(super) const CASES: &[Case] = &[
    case!(Sec s01_a_copy_of_the_backend_opens_no_session [Server]
        "The token cannot be computed from it, so that a copy of the database opens no session."
        "Whoever reads a backup has every session (TYPO3, CVE-2020-26228; Rack, CVE-2019-16782)."),
    case!(Sec s02_what_an_application_stores_is_not_readable_in_the_backend [Server]
        "By default they are sealed under a key that only the client's token yields."
        "A backup of the session store is a backup of personal data."),
    case!(Sec s03_a_value_copied_to_another_session_is_refused [Server]
        "By default they are sealed under a key that only the client's token yields."
        "Whoever can write to the backend gives a session the rights of another one."),
    case!(Sec s04_no_secret_is_shown_or_logged []
        "No token, key, data or password appears in an error, a log line or `Debug`."
        "Sessions can be taken over by whoever reads the logs (CVE-2023-20866)."),
    case!(Sec s05_hostile_texts_are_only_texts []
        "Subjects are compared byte for byte."
        "A name that a user has chosen is executed by the database."),
    case!(Sec s07_a_removed_key_opens_no_session []
        "the newest writes, every one reads"
        "A key that leaked works for ever, or rotating it logs everybody out (Flask, CVE-2025-47278)."),
];

/// What a secret may look like in a text, cut into pieces that no chance produces.
pub(super) fn spellings(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let decimals: Vec<_> = secret.iter().map(u8::to_string).collect();
    let whole = [
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        STANDARD_NO_PAD.encode(secret).into_bytes(),
        URL_SAFE_NO_PAD.encode(secret).into_bytes(),
        secret.escape_ascii().to_string().into_bytes(),
        decimals.join(", ").into_bytes(),
    ];
    let raw = secret.windows(8).map(<[u8]>::to_vec);
    whole
        .iter()
        .flat_map(|text| text.windows(12).map(<[u8]>::to_vec))
        .chain(raw)
        .collect()
}

/// Whether one of the needles is in the haystack, in one pass for each length that needles have.
pub(super) fn finds(haystack: &[u8], needles: &[Vec<u8>]) -> bool {
    let mut by_length: HashMap<usize, HashSet<&[u8]>> = HashMap::new();
    for needle in needles {
        by_length.entry(needle.len()).or_default().insert(needle);
    }
    by_length.iter().any(|(length, needles)| {
        let mut windows = haystack.windows(*length);
        windows.any(|window| needles.contains(window))
    })
}

async fn s01_a_copy_of_the_backend_opens_no_session(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let mut record = cx.record("hello");
    record.subject = Some(cx.subject("alice"));
    let token = store.create(cx.token(), &record).await?;
    let needles = spellings(token.expose());
    let dump = cx.raw_dump().await?;
    cx.check(!dump.is_empty(), "a dump with a record", "an empty dump")?;
    for entry in &dump {
        cx.check(
            !finds(&entry.name, &needles),
            "a name without the token",
            "the token in a name",
        )?;
        cx.check(
            !finds(&entry.value, &needles),
            "a value without the token",
            "the token in a value",
        )?;
    }
    let key = token.key();
    let mut stolen = vec![key.as_bytes().to_vec(), key.to_hex().into_bytes()];
    stolen.extend(dump.iter().map(|entry| entry.name.clone()));
    for bytes in stolen {
        let forged = Token::from_bytes(bytes, cx.cookie());
        cx.absent("of a token made of what is stored", &store, &forged)
            .await?;
    }
    Ok(())
}

pub(super) const CANARY: &str = "canary-0123456789-canary";

async fn s02_what_an_application_stores_is_not_readable_in_the_backend(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    cx.raw_dump().await?;
    let keyring = Keyring::new([Key::generate()?])?;
    let manager = manager(cx, &store, &keyring, |config| config)?;
    let mut browser = Browser::default();
    browser
        .visit(&manager, |session| session.insert("name", CANARY))
        .await?;
    let needles = spellings(CANARY.as_bytes());
    let dump = cx.raw_dump().await?;
    cx.check(!dump.is_empty(), "a dump with a session", "an empty dump")?;
    for entry in &dump {
        let hidden = !finds(&entry.value, &needles) && !finds(&entry.name, &needles);
        cx.check(
            hidden,
            "data that cannot be read in the backend",
            "the data in clear",
        )?;
    }
    for entry in &dump {
        for at in (0..entry.value.len()).step_by(7) {
            let mut value = entry.value.clone();
            value[at] ^= 1;
            cx.raw_write(&RawEntry {
                name: entry.name.clone(),
                value,
            })
            .await?;
            // An error, no session, or the session as it was; never another one.
            let seen = browser
                .visit(&manager, |session| session.get::<String>("name"))
                .await;
            if let Ok(Some(name)) = seen {
                cx.equal(
                    &format!("after a change of byte {at}, the name is"),
                    &name,
                    &CANARY.into(),
                )?;
            }
        }
        cx.raw_write(entry).await?;
    }
    Ok(())
}

async fn s03_a_value_copied_to_another_session_is_refused(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    cx.raw_dump().await?;
    let keyring = Keyring::new([Key::generate()?])?;
    let manager = manager(cx, &store, &keyring, |config| config)?;
    let (mut victim, mut attacker) = (Browser::default(), Browser::default());
    victim
        .visit(&manager, |session| session.insert("name", "victim"))
        .await?;
    let theirs = cx.raw_dump().await?;
    attacker
        .visit(&manager, |session| session.insert("name", "attacker"))
        .await?;
    for own in cx
        .raw_dump()
        .await?
        .iter()
        .filter(|entry| !theirs.contains(entry))
    {
        for stolen in &theirs {
            let value = stolen.value.clone();
            cx.raw_write(&RawEntry {
                name: own.name.clone(),
                value,
            })
            .await?;
            let seen = attacker
                .visit(&manager, |session| session.get::<String>("name"))
                .await;
            cx.check(
                !matches!(&seen, Ok(Some(name)) if name == "victim"),
                "a value that was copied to another session is refused",
                "the data of the other session",
            )?;
        }
        cx.raw_write(own).await?;
    }
    Ok(())
}

async fn s04_no_secret_is_shown_or_logged(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let capture = Capture::default();
    let mut shown = String::new();
    let mut secrets = vec![CANARY.as_bytes().to_vec()];
    let acted = act(cx, &store, &mut shown, &mut secrets);
    acted.with_subscriber(capture.clone()).await?;
    write!(shown, "{store:?}\n{:#?}", store.capabilities()).expect("a string takes every text");
    for secret in &secrets {
        let needles = spellings(secret);
        let in_shown = finds(shown.as_bytes(), &needles);
        cx.check(
            !in_shown,
            "errors and Debug without secrets",
            "a token, key or data in one",
        )?;
        let in_logs = finds(capture.text().as_bytes(), &needles);
        cx.check(
            !in_logs,
            "log lines without secrets",
            "a token, key or data in one",
        )?;
    }
    Ok(())
}

/// Makes calls that succeed and calls that fail, and collects every error.
async fn act(
    cx: &Context,
    store: &Arc<dyn SessionStore>,
    shown: &mut String,
    secrets: &mut Vec<Vec<u8>>,
) -> Outcome {
    let mut note = |error: Option<Error>| {
        let mut cause: Option<&dyn std::error::Error> = error.as_ref().map(|error| error as _);
        while let Some(error) = cause {
            write!(shown, "{error}\n{error:?}\n").expect("a string takes every text");
            cause = error.source();
        }
    };
    let subject = cx.subject("alice");
    let record = Record {
        subject: Some(subject.clone()),
        ..cx.record(CANARY)
    };
    let (given, unknown) = (cx.token(), cx.token());
    let token = store.create(given.clone(), &record).await?;
    for token in [&given, &token, &unknown] {
        secrets.push(token.expose().to_vec());
        secrets.push(token.key().as_bytes().to_vec());
    }
    for fault in [
        None,
        Some(Fault::Down),
        Some(Fault::ReadOnly),
        Some(Fault::Full),
    ] {
        if let Some(fault) = fault
            && cx.fault(fault).await.is_err()
        {
            continue;
        }
        note(store.load(&token).await.err());
        note(store.create(token.clone(), &record).await.err());
        note(store.update(&token, cx.revision(), &record).await.err());
        note(store.update(&unknown, record.revision, &record).await.err());
        note(store.touch(&unknown, record.expires_at).await.err());
        note(store.renew(&token, cx.revision(), &record).await.err());
        note(store.delete(&token, Some(cx.revision())).await.err());
        note(store.delete(&unknown, None).await.err());
        note(store.sweep(1).await.err());
        note(store.try_sweep(1).await.err());
        note(store.ping().await.err());
        if let Some(index) = store.subjects() {
            note(index.list(&subject, None, 10).await.err());
            note(index.revoke(&subject, &unknown.key()).await.err());
            let but_one = index.revoke_all(&subject, Some(&token.key())).await;
            note(but_one.err());
        }
        if fault.is_some() {
            cx.fault(Fault::None).await?;
        }
    }
    Ok(())
}

async fn s05_hostile_texts_are_only_texts(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let foreign = cx.foreign().await.ok();
    let mut bystander = cx.record("bystander");
    bystander.subject = Some(cx.subject("alice"));
    let kept = store.create(cx.token(), &bystander).await?;
    let texts = [
        "' OR '1'='1",
        "'; DELETE FROM sessions; --",
        "*",
        "%",
        "_",
        "a\0b",
        "\r\nFLUSHALL\r\n",
        "../../etc/passwd",
        "${jndi:ldap://x}",
        "$(reboot)",
        "{{7*7}}",
        "\\",
        "\"",
        "-1 UNION SELECT 1",
    ];
    for text in texts {
        let mut record = cx.record(text.as_bytes().to_vec());
        record.subject = Some(Subject::from_stored(text)?);
        record.label = Label::from_stored(text)?;
        let created = store.create(cx.token(), &record).await;
        let token = cx.ok(&format!("create with the texts {text:?}"), created)?;
        cx.holds(&format!("with the texts {text:?}"), &store, &token, &record)
            .await?;
        if let Some(index) = store.subjects() {
            only_theirs(cx, index, text, &token.key()).await?;
        }
        if cx.capabilities().sweep == Sweep::Explicit {
            cx.equal(
                "the number of swept records is",
                &store.sweep(10).await?,
                &0,
            )?;
        }
        cx.holds("of a bystander", &store, &kept, &bystander)
            .await?;
    }
    match foreign {
        Some(before) => cx.equal("what lives beside is", &cx.foreign().await?, &before),
        None => Ok(()),
    }
}

async fn only_theirs(
    cx: &Context,
    index: &dyn sessionkit::SubjectIndex,
    text: &str,
    key: &StoreKey,
) -> Outcome {
    let subject = Subject::from_stored(text)?;
    let listed = cx.ok("list", index.list(&subject, None, 100).await)?;
    let listed: Vec<_> = listed.iter().map(|session| session.key.to_hex()).collect();
    cx.equal(
        &format!("the sessions of the subject {text:?} are"),
        &listed,
        &vec![key.to_hex()],
    )?;
    let revoked = cx.ok("revoke_all", index.revoke_all(&subject, None).await)?;
    cx.equal(
        &format!("the sessions of {text:?} that were revoked are"),
        &revoked,
        &1,
    )
}

async fn s07_a_removed_key_opens_no_session(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let keyring = Keyring::new([Key::generate()?])?;
    let own = cx.keyring().unwrap_or_else(|_| keyring.clone());
    let manager = manager(cx, &store, &keyring, |config| config)?;
    let mut browser = Browser::default();
    browser
        .visit(&manager, |session| session.insert("count", &1))
        .await?;
    let old = browser.cookie().map(str::to_owned);
    // A client-side store has the keys, otherwise the manager.
    let first = [&keyring, &own].map(|keys| keys.ids()[0]);
    let next = Key::generate()?;
    keyring.rotate(next.clone())?;
    if !own.ids().contains(&next.id()) {
        own.rotate(next)?;
    }
    let count = browser
        .visit(&manager, |session| session.get::<u32>("count"))
        .await?;
    cx.equal("after a key was added, the count is", &count, &Some(1))?;
    browser
        .visit(&manager, |session| session.insert("count", &2))
        .await?;
    let new = browser.cookie().map(str::to_owned);
    cx.check(
        new.is_some() && new != old,
        "a cookie under the newest key",
        "the old cookie",
    )?;

    for (keys, id) in [&keyring, &own].into_iter().zip(first) {
        if keys.ids().contains(&id) {
            keys.remove(id)?;
        }
    }
    let count = browser
        .visit(&manager, |session| session.get::<u32>("count"))
        .await?;
    cx.equal(
        "after the old key was removed, the count is",
        &count,
        &Some(2),
    )?;
    let newest = Key::generate()?;
    for keys in [&keyring, &own] {
        keys.replace([newest.clone()])?;
    }
    let count = browser
        .visit(&manager, |session| session.get::<u32>("count"))
        .await?;
    cx.equal("after its key was removed, the count is", &count, &None)
}
