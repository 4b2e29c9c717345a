use serde_json::{Value, json};
use sessionkit::{ErrorKind, Key, Keyring, Label, Record, Session, SessionStore, Token};

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
