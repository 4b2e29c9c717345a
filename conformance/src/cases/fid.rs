use std::time::Duration;

use serde_json::{Value, json};
use sessionkit::{
    Custody, ErrorKind, Key, Keyring, Label, Record, Revision, Session, SessionStore, Token,
};

use super::case;
use crate::{
    Case, Context, Failure, Outcome, RawEntry,
    browser::{Browser, manager},
    model,
    verdict::describe,
};

pub(super) const CASES: &[Case] = &[
    case!(Fid f01_typed_values_survive []
        "A record comes back as it was given, byte for byte"
        "Numbers change on their way through JSON, and an empty list becomes `nothing`."),
    case!(Fid f02_every_byte_survives []
        "A record comes back as it was given, byte for byte"
        "Text columns refuse a NUL or replace what is not UTF-8: the session is lost or garbled."),
    case!(Fid f03_texts_in_every_script_survive []
        "A record comes back as it was given, byte for byte"
        "A backend that normalizes, folds or trims text returns another label than it was given."),
    case!(Fid f04_data_of_every_size_come_back_whole []
        "up to [`Capabilities::max_data`]; larger data are [`TooLarge`](crate::ErrorKind::TooLarge) before anything is written."
        "A column or buffer that is too small cuts the session silently (Drupal, CVE-2016-3171)."),
    case!(Fid f05_the_metacharacters_of_backends_survive []
        "A record comes back as it was given, byte for byte"
        "What is meant as data is read as syntax: quotes disappear, or a query is changed."),
    case!(Fid f07_an_unreadable_value_is_corrupt_and_can_be_deleted [Server]
        "[`Corrupt`](crate::ErrorKind::Corrupt) when what is stored cannot be read as a record"
        "One damaged row takes a process down, or is taken for an empty session."),
    case!(Fid f08_records_of_released_formats_load [Server]
        "damaged, not ours, or written by a newer version."
        "An upgrade logs everybody out, or reads old records as something else (connect-mongo)."),
    case!(Fid f09_random_calls_answer_as_the_model_does [Server]
        "Each call takes effect at one instant or not at all"
        "Whatever nobody thought of."),
    case!(Fid f40_each_call_keeps_or_replaces_every_field []
        "Sets the expiry of a live record, to a later or an earlier instant, and changes nothing else (the revision stays)."
        "A touch makes a session look new, or takes its owner away; a renewal keeps the label of the browser before."),
    case!(Fid f41_revisions_that_differ_in_one_bit_are_two [Server CompareAndSwap]
        "[`Conflict`](crate::ErrorKind::Conflict) when the stored revision is another"
        "A revision that is cut or rounded on its way lets a change overwrite another one."),
    case!(Fid f42_a_load_changes_nothing_of_what_is_stored [Server]
        "The live record of a token. Stores nothing and extends nothing."
        "Reading repairs what it takes for damaged, and destroys what an operator could still have read."),
];

async fn round_trip(
    cx: &Context,
    store: &dyn SessionStore,
    what: &str,
    record: &Record,
) -> Outcome<Token> {
    let created = store.create(cx.token(), record).await;
    let token = cx.ok(&format!("create with {what}"), created)?;
    cx.holds(&format!("of {what}"), store, &token, record)
        .await?;
    let changed = cx.changed(record, record.data.clone());
    let updated = store.update(&token, record.revision, &changed).await;
    let token = cx.ok(&format!("update with {what}"), updated)?;
    cx.holds(&format!("of {what} after update"), store, &token, &changed)
        .await?;
    Ok(token)
}

async fn f01_typed_values_survive(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let keyring = Keyring::new([Key::generate()?])?;
    let manager = manager(cx, &store, &keyring, |config| config)?;
    let mut browser = Browser::default();
    let deep = (0..32).fold(json!("bottom"), |inner, _| json!([inner]));
    let values = [
        ("null", json!(null)),
        ("true", json!(true)),
        ("the least i64", json!(i64::MIN)),
        ("the largest u64", json!(u64::MAX)),
        ("2^53 + 1", json!(9_007_199_254_740_993_u64)),
        ("1e308", json!(1e308)),
        ("an empty text", json!("")),
        ("a NUL", json!("\0")),
        ("an empty list", json!([])),
        ("an empty map", json!({})),
        ("32 levels", deep),
    ];
    let insert = |session: &Session| {
        session.insert("-0.0", &-0.0_f64)?;
        values
            .iter()
            .try_for_each(|(name, value)| session.insert(name, value))
    };
    browser.visit(&manager, insert).await?;
    for (name, value) in &values {
        let read = browser
            .visit(&manager, |session| session.get::<Value>(name))
            .await?;
        cx.equal(
            &format!("the value of {name} is"),
            &read,
            &Some(value.clone()),
        )?;
    }
    let zero = browser
        .visit(&manager, |session| session.get::<f64>("-0.0"))
        .await?;
    let bits = zero.map(f64::to_bits);
    cx.equal("the bits of -0.0 are", &bits, &Some((-0.0_f64).to_bits()))
}

async fn f02_every_byte_survives(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let all: Vec<u8> = (0..=255).collect();
    let payloads: [(&str, &[u8]); 8] = [
        ("all 256 bytes", &all),
        ("a NUL in the middle", b"before\0after"),
        ("a NUL at the end", b"end\0"),
        ("bytes that are not UTF-8", b"\xff\xfe\xc3\x28\xed\xa0\x80"),
        ("line ends", b"\r\n\n\r"),
        ("spaces at both ends", b"  x  "),
        ("a byte order mark", b"\xef\xbb\xbfx"),
        ("JSON", br#"{"a":null}"#),
    ];
    for (what, data) in payloads {
        round_trip(cx, &store, what, &cx.record(data.to_vec())).await?;
    }
    Ok(())
}

const TEXTS: [(&str, &str); 9] = [
    ("a composed letter", "\u{e9}"),
    ("a decomposed letter", "e\u{301}"),
    ("a letter beyond 16 bits", "\u{1f980}\u{10ffff}"),
    ("right-to-left text", "\u{5e9}\u{5dc}\u{5d5}\u{5dd}\u{202e}"),
    ("a noncharacter", "\u{ffff}"),
    ("a dotless i", "I\u{131}\u{130}\u{df}\u{1e9e}"),
    ("trailing spaces", "label  "),
    ("capital letters", "LaBeL"),
    ("digits that look like a number", "007e1"),
];

async fn f03_texts_in_every_script_survive(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    texts_survive(cx, &store, &TEXTS).await?;
    let long = "\u{1f980}".repeat(Label::MAX_LEN / 4);
    texts_survive(cx, &store, &[("the longest text", long.as_str())]).await
}

async fn texts_survive(cx: &Context, store: &dyn SessionStore, texts: &[(&str, &str)]) -> Outcome {
    for (what, text) in texts {
        let mut record = cx.record(text.as_bytes().to_vec());
        record.label = Label::from_stored(text)?;
        record.subject = Some(sessionkit::Subject::from_stored(*text)?);
        round_trip(cx, store, what, &record).await?;
    }
    Ok(())
}

async fn f04_data_of_every_size_come_back_whole(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let max = cx.capabilities().max_data;
    let mut sizes = vec![
        0,
        1,
        255,
        256,
        4095,
        4096,
        4097,
        65_535,
        65_536,
        65_537,
        1 << 20,
    ];
    sizes.retain(|size| *size <= max);
    if max <= 16 << 20 {
        sizes.extend([max - 1, max]);
    }
    for size in sizes {
        let record = cx.record(cx.random().bytes(size));
        round_trip(cx, &store, &format!("{size} bytes"), &record).await?;
    }
    if max > 128 << 20 {
        return Ok(());
    }
    let larger = cx.record(vec![b'x'; max + 1]);
    let token = cx.token();
    let created = store.create(token.clone(), &larger).await;
    cx.err(
        "create with a byte more than max_data",
        ErrorKind::TooLarge,
        created,
    )?;
    cx.absent("after it failed", &store, &token).await
}

async fn f05_the_metacharacters_of_backends_survive(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let texts = [
        ("SQL", "'; DROP TABLE sessions; --"),
        ("quotes", "\\'\"`´\\\\"),
        ("wildcards", "%_*?[a-z]{1}"),
        ("Redis separators", "a:b{c}:d*\r\n$3\r\nGET"),
        ("placeholders", "$1 ?1 :name @p %s {0}"),
        ("paths", "../../etc/passwd\\..\\"),
        ("markup", "<b>&amp;</b>"),
        ("NUL and controls", "a\0b\u{1}\u{7f}"),
    ];
    texts_survive(cx, &store, &texts).await
}

async fn f07_an_unreadable_value_is_corrupt_and_can_be_deleted(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let tokens = [cx.token(), cx.token()];
    let record = cx.record("hello, this is some data to damage");
    for token in &tokens {
        store.create(token.clone(), &record).await?;
    }
    let intact = cx.raw_dump().await?;
    // What is stored for one token is found by its absence, the format being the store's affair.
    store.delete(&tokens[0], None).await?;
    let others = cx.raw_dump().await?;
    store.create(tokens[0].clone(), &record).await?;
    let Some(entry) = intact
        .iter()
        .find(|entry| others.iter().all(|o| o.name != entry.name))
    else {
        return Err(Failure::error(
            "a deleted record leaves all its raw entries",
        ));
    };
    for (what, value, unreadable) in damages(&entry.value, cx.random().below(entry.value.len())) {
        cx.raw_write(&RawEntry {
            name: entry.name.clone(),
            value,
        })
        .await?;
        let fresh = cx.open().await?;
        let loaded = fresh.load(&tokens[0]).await;
        match loaded {
            Err(error) if error.kind() == ErrorKind::Corrupt => cx.check(true, "", "")?,
            Err(error) => cx.err(
                &format!("load of {what}"),
                ErrorKind::Corrupt,
                Err::<(), _>(error),
            )?,
            Ok(found) => cx.check(
                !unreadable,
                format_args!("load of {what} is Corrupt"),
                describe(found.as_ref()),
            )?,
        }
        cx.holds(
            &format!("of another record beside {what}"),
            &fresh,
            &tokens[1],
            &record,
        )
        .await?;
        if unreadable {
            let deleted = fresh.delete(&tokens[0], Some(record.revision)).await;
            let call = format!("delete of {what} at a revision");
            cx.err(&call, ErrorKind::Corrupt, deleted)?;
        }
        let deleted = fresh.delete(&tokens[0], None).await;
        cx.ok(&format!("delete of {what}"), deleted)?;
        cx.absent(&format!("after delete of {what}"), &fresh, &tokens[0])
            .await?;
        let created = fresh.create(tokens[0].clone(), &record).await;
        cx.ok(&format!("create after delete of {what}"), created)?;
    }
    Ok(())
}

/// Damaged values, and whether nobody could take them for a record.
fn damages(value: &[u8], at: usize) -> Vec<(String, Vec<u8>, bool)> {
    let mut damaged = vec![
        ("an empty value".into(), Vec::new(), true),
        ("a single byte".into(), vec![0xff], true),
        ("foreign text".into(), b"{\"user\":1}".to_vec(), true),
        ("64 bytes of ones".into(), vec![0xff; 64], true),
    ];
    for len in [1, 2, 4, 8, value.len() / 2, value.len() - 1] {
        let len = len.min(value.len() - 1);
        damaged.push((
            format!("the first {len} bytes"),
            value[..len].to_vec(),
            len <= 4,
        ));
    }
    let mut flipped = value.to_vec();
    flipped[at] ^= 0x10;
    damaged.push((format!("a flipped bit in byte {at}"), flipped, false));
    damaged
}

async fn f08_records_of_released_formats_load(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    for golden in cx.golden().await? {
        match golden.record {
            Some(record) => {
                cx.holds("of a released format", &store, &golden.token, &record)
                    .await?
            }
            None => {
                let loaded = store.load(&golden.token).await;
                cx.err("load of a newer format", ErrorKind::Corrupt, loaded)?;
            }
        }
    }
    Ok(())
}

async fn f09_random_calls_answer_as_the_model_does(cx: &Context) -> Outcome {
    // 64 sequences, half of them at a time: a call that waits for a disk or a network takes a
    // thousand times as long as one that does not, and many wait hardly longer than one.
    for group in 0..2 {
        let sequences = model::sequences(cx.random(), 32, 200);
        if let Some(deviation) = model::run(cx, &group.to_string(), &sequences).await? {
            return Err(model::shrink(cx, deviation).await);
        }
    }
    Ok(())
}

async fn f40_each_call_keeps_or_replaces_every_field(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let hours = |hours: u64| Duration::from_secs(3600 * hours);
    // No field has the value that a store would put in by itself.
    let record = |name: &str, age: u64| -> Outcome<Record> {
        Ok(Record {
            created_at: cx.now() - hours(age),
            subject: Some(cx.subject(name)),
            label: Label::new(&format!("the browser of {name}"))?,
            ..cx.record(format!("the data of {name}"))
        })
    };
    let mut record_now = record("alice", 5)?;
    let mut token = store.create(cx.token(), &record_now).await?;
    stands(cx, "after create", [&store, &other], &token, &record_now).await?;
    for (when, lifetime) in [("a later", 48), ("an earlier", 7)] {
        record_now.expires_at = cx.now() + hours(lifetime);
        let touched = store.touch(&token, record_now.expires_at).await;
        token = cx.ok("touch", touched)?;
        let when = format!("after touch to {when} instant");
        stands(cx, &when, [&store, &other], &token, &record_now).await?;
    }
    for (call, name, age) in [("update", "bob", 3), ("renew", "carol", 9)] {
        let next = record(name, age)?;
        let answer = match call {
            "update" => other.update(&token, record_now.revision, &next).await,
            _ => other.renew(&token, record_now.revision, &next).await,
        };
        token = cx.ok(call, answer)?;
        record_now = next;
        let when = format!("after {call}");
        stands(cx, &when, [&other, &store], &token, &record_now).await?;
    }
    // Back to fields without a value.
    let plain = Record {
        subject: None,
        label: Label::default(),
        ..record("nobody", 1)?
    };
    let updated = store.update(&token, record_now.revision, &plain).await;
    token = cx.ok("update", updated)?;
    stands(
        cx,
        "after an update without subject and label",
        [&store, &other],
        &token,
        &plain,
    )
    .await?;
    if cx.capabilities().custody == Custody::Server {
        cx.ok("delete", store.delete(&token, None).await)?;
        let bare = cx.record("bare");
        store.create(token.clone(), &bare).await?;
        stands(
            cx,
            "after delete and create",
            [&store, &other],
            &token,
            &bare,
        )
        .await?;
    }
    Ok(())
}

/// Both handles have the record, and so has the list of its subject.
async fn stands(
    cx: &Context,
    when: &str,
    handles: [&std::sync::Arc<dyn SessionStore>; 2],
    token: &Token,
    record: &Record,
) -> Outcome {
    cx.holds(when, handles[0], token, record).await?;
    cx.settle().await;
    cx.holds(
        &format!("{when}, on another handle"),
        handles[1],
        token,
        record,
    )
    .await?;
    let (Some(index), Some(subject)) = (handles[1].subjects(), &record.subject) else {
        return Ok(());
    };
    let listed = cx.ok("list", index.list(subject, None, 10).await)?;
    let listed: Vec<_> = listed
        .iter()
        .map(|session| {
            (
                session.created_at,
                session.expires_at,
                session.label.as_str(),
            )
        })
        .collect();
    let expected = vec![(record.created_at, record.expires_at, record.label.as_str())];
    let what = format!("{when}, creation, expiry and label in the list are");
    cx.equal(&what, &listed, &expected)
}

async fn f41_revisions_that_differ_in_one_bit_are_two(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let mut record = cx.record("first");
    let token = store.create(cx.token(), &record).await?;
    let bits = record.revision.to_bits();
    let upper = !0 << 32;
    let near = (0..64).map(|bit| (format!("bit {bit}"), bits ^ (1 << bit)));
    let halves = [
        (
            "the upper half",
            bits ^ (cx.random().next() | 1 << 40) & upper,
        ),
        (
            "the lower half",
            bits ^ (cx.random().next() | 1 << 20) & !upper,
        ),
        ("the order of the bytes", bits.swap_bytes()),
        ("the order of the halves", bits.rotate_left(32)),
    ];
    let halves = halves.map(|(what, bits)| (what.to_owned(), bits));
    for (what, other_bits) in near.chain(halves) {
        if other_bits == bits {
            continue;
        }
        let wrong = Revision::from_bits(other_bits);
        let when = format!("at a revision that differs in {what}");
        let next = cx.changed(&record, "not to be stored");
        let updated = store.update(&token, wrong, &next).await;
        cx.err(&format!("update {when}"), ErrorKind::Conflict, updated)?;
        let renewed = other.renew(&token, wrong, &next).await;
        cx.err(&format!("renew {when}"), ErrorKind::Conflict, renewed)?;
        let deleted = other.delete(&token, Some(wrong)).await;
        cx.err(&format!("delete {when}"), ErrorKind::Conflict, deleted)?;
        cx.holds(&format!("after calls {when}"), &store, &token, &record)
            .await?;
    }
    // The revision before and the one after may be as near.
    for bit in [0, 31, 32, 63] {
        let next = Record {
            revision: Revision::from_bits(record.revision.to_bits() ^ (1 << bit)),
            ..record.clone()
        };
        let updated = store.update(&token, record.revision, &next).await;
        cx.ok("update to a near revision", updated)?;
        let again = other.update(&token, record.revision, &record).await;
        let call = format!("update at the former revision, another in bit {bit},");
        cx.err(&call, ErrorKind::Conflict, again)?;
        cx.holds("after that", &store, &token, &next).await?;
        record = next;
    }
    Ok(())
}

async fn f42_a_load_changes_nothing_of_what_is_stored(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let mut kept = Vec::new();
    for number in 0..3 {
        let mut record = cx.record(format!("number {number}"));
        record.subject = Some(cx.subject("alice"));
        kept.push((store.create(cx.token(), &record).await?, record));
    }
    let before = cx.raw_dump().await?;
    let ruined = cx.token();
    store
        .create(ruined.clone(), &cx.record("to be damaged"))
        .await?;
    for entry in cx.raw_dump().await? {
        if before.iter().all(|known| known.name != entry.name) {
            let value = b"?".to_vec();
            cx.raw_write(&RawEntry { value, ..entry }).await?;
        }
    }
    let stored = cx.raw_dump().await?;
    for handle in [&store, &other, &cx.open().await?] {
        for (token, record) in &kept {
            cx.holds("of a live record", handle, token, record).await?;
        }
        for _ in 0..2 {
            let loaded = handle.load(&ruined).await;
            cx.err("load of a damaged record", ErrorKind::Corrupt, loaded)?;
            cx.absent("of an unknown token", handle, &cx.token())
                .await?;
        }
        unchanged(cx, "a live, a damaged and an absent record", &stored, &[]).await?;
    }
    // What has expired may go at any time, and nothing else with it.
    let stale = Record {
        expires_at: cx.now() - cx.moment(),
        ..cx.record("stale")
    };
    let token = store.create(cx.token(), &stale).await?;
    let with_stale = cx.raw_dump().await?;
    for handle in [&store, &other] {
        cx.absent("of an expired record", handle, &token).await?;
    }
    unchanged(cx, "an expired record", &stored, &with_stale).await
}

/// The backend holds what it held before a load, and perhaps what it may remove at any time.
async fn unchanged(cx: &Context, of: &str, stored: &[RawEntry], removable: &[RawEntry]) -> Outcome {
    let now = cx.raw_dump().await?;
    let lost = stored.iter().filter(|entry| !now.contains(entry)).count();
    let added = now
        .iter()
        .filter(|entry| !stored.contains(entry) && !removable.contains(entry))
        .count();
    cx.check(
        lost == 0 && added == 0,
        format_args!("after loads of {of}, the entries that were stored before"),
        format_args!("{lost} of them are gone or changed, and {added} others are there"),
    )
}
