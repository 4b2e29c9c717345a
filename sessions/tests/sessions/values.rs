use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize, de::DeserializeOwned, ser};
use sessionkit::ErrorKind;

use crate::support::World;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Unit,
    Newtype(u8),
    Tuple(u8, String),
    Struct { side: f64 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Nested {
    depth: u32,
    inner: Option<Box<Self>>,
}

/// Stores a value, loads it in another request, and compares.
async fn check<T>(value: T)
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug + Send + Sync,
{
    let world = World::new();
    let mut browser = world.browser();
    browser
        .visit(|session| session.insert("key", &value))
        .await
        .unwrap();
    assert_eq!(browser.get::<T>("key").await, Some(value));
}

#[tokio::test]
async fn values_of_every_kind_come_back() {
    check(true).await;
    check((i64::MIN, i64::MAX, u64::MAX, (1_i64 << 53) + 1)).await;
    check((1e308_f64, f64::MIN_POSITIVE, f64::INFINITY, 0.1_f32)).await;
    check("Grüße, 世界 \u{10ffff} \0 e\u{301} é".to_owned()).await;
    check('\u{10ffff}').await;
    check((0..=255).collect::<Vec<u8>>()).await;
    check((Some(1), None::<u8>, ())).await;
    check(vec![
        Shape::Unit,
        Shape::Newtype(1),
        Shape::Tuple(2, "two".to_owned()),
        Shape::Struct { side: 3.0 },
    ])
    .await;
    check((
        BTreeMap::<String, u8>::new(),
        Vec::<u8>::new(),
        String::new(),
    ))
    .await;
    check(HashMap::from([
        (1_u64, "one".to_owned()),
        (2, "two".to_owned()),
    ]))
    .await;
}

#[tokio::test]
async fn negative_zero_and_not_a_number_come_back() {
    let world = World::new();
    let mut browser = world.browser();
    browser
        .visit(|session| session.insert("key", &(-0.0_f64, f64::NAN)))
        .await
        .unwrap();
    let (zero, nan): (f64, f64) = browser.get("key").await.unwrap();
    assert!(zero.is_sign_negative() && zero == 0.0);
    assert!(nan.is_nan());
}

#[tokio::test]
async fn a_deep_value_comes_back() {
    let deep = (0..100).fold(None, |inner, depth| Some(Box::new(Nested { depth, inner })));
    check(deep).await;
}

#[tokio::test]
async fn keys_are_compared_byte_for_byte() {
    let world = World::new();
    let mut browser = world.browser();
    let keys = [
        "a",
        "A",
        "a ",
        "",
        "a\0",
        "é",
        "e\u{301}",
        ": { } ' \" \\ % _ ;-- $ *",
    ];
    browser
        .visit(|session| {
            keys.iter()
                .enumerate()
                .try_for_each(|(index, key)| session.insert(key, &index))
        })
        .await
        .unwrap();
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(browser.get::<usize>(key).await, Some(index), "{key:?}");
    }
    let mut sorted = keys.map(str::to_owned);
    sorted.sort();
    assert_eq!(browser.visit(|session| session.keys()).await, sorted);
}

#[tokio::test]
async fn a_missing_key_is_none() {
    let mut browser = World::new().browser();
    assert_eq!(browser.get::<String>("nothing").await, None);
    assert!(!browser.visit(|session| session.remove("nothing")).await);
    assert_eq!(
        browser
            .visit(|session| session.take::<u8>("nothing"))
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn reading_as_another_type_is_an_error_that_names_the_key() {
    let mut browser = World::new().signed_in().await;
    let error = browser
        .visit(|session| session.get::<u32>("user"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidValue);
    assert_eq!(
        error.to_string(),
        "the value of \"user\" cannot be read as u32"
    );
}

#[tokio::test]
async fn an_error_does_not_quote_the_value() {
    let mut browser = World::new().browser();
    browser
        .visit(|session| session.insert("key", "hunter2"))
        .await
        .unwrap();
    let error = browser
        .visit(|session| session.get::<u32>("key"))
        .await
        .unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    assert!(std::error::Error::source(&error).is_none());
}

#[tokio::test]
async fn a_longer_tuple_is_not_read_as_a_shorter_one() {
    let mut browser = World::new().browser();
    browser
        .visit(|session| session.insert("key", &(1, 2, 3)))
        .await
        .unwrap();
    assert!(
        browser
            .visit(|session| session.get::<(u8, u8)>("key"))
            .await
            .is_err()
    );
    assert!(
        browser
            .visit(|session| session.get::<(u8, u8, u8, u8)>("key"))
            .await
            .is_err()
    );
    assert!(
        browser
            .visit(|session| session.get::<u8>("key"))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_number_out_of_range_is_not_read_as_a_smaller_type() {
    let mut browser = World::new().browser();
    browser
        .visit(|session| session.insert("key", &300))
        .await
        .unwrap();
    assert!(
        browser
            .visit(|session| session.get::<u8>("key"))
            .await
            .is_err()
    );
    assert_eq!(browser.get::<u16>("key").await, Some(300));
}

#[tokio::test]
async fn a_struct_that_gained_a_default_field_reads_what_was_stored_before() {
    #[derive(Serialize)]
    struct Old {
        name: String,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct New {
        #[serde(default)]
        admin: bool,
        name: String,
    }
    let mut browser = World::new().browser();
    let old = Old {
        name: "alice".to_owned(),
    };
    browser
        .visit(|session| session.insert("user", &old))
        .await
        .unwrap();
    let expected = New {
        admin: false,
        name: "alice".to_owned(),
    };
    assert_eq!(
        browser.visit(|session| session.get("user")).await.unwrap(),
        Some(expected)
    );
}

#[tokio::test]
async fn one_unreadable_value_does_not_spoil_the_others() {
    let mut browser = World::new().browser();
    browser
        .visit(|session| {
            session.insert("good", "value")?;
            session.insert("bad", &[1, 2, 3])
        })
        .await
        .unwrap();
    assert!(
        browser
            .visit(|session| session.get::<String>("bad"))
            .await
            .is_err()
    );
    assert_eq!(
        browser.get::<String>("good").await.as_deref(),
        Some("value")
    );
    assert!(browser.visit(|session| session.remove("bad")).await);
}

#[tokio::test]
async fn taking_as_another_type_leaves_the_value() {
    let mut browser = World::new().signed_in().await;
    assert!(
        browser
            .visit(|session| session.take::<u32>("user"))
            .await
            .is_err()
    );
    let taken = browser
        .visit(|session| session.take::<String>("user"))
        .await
        .unwrap();
    assert_eq!(taken.as_deref(), Some("alice"));
    assert_eq!(browser.get::<String>("user").await, None);
}

#[tokio::test]
async fn a_value_that_cannot_be_serialized_changes_nothing() {
    struct Stubborn;
    impl Serialize for Stubborn {
        fn serialize<S: ser::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(ser::Error::custom("secret"))
        }
    }
    let mut browser = World::new().signed_in().await;
    let error = browser
        .visit(|session| session.insert("user", &Stubborn))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidValue);
    assert!(!format!("{error:?}").contains("secret"));
    assert_eq!(
        browser.get::<String>("user").await.as_deref(),
        Some("alice")
    );
}

#[tokio::test]
async fn update_computes_from_what_is_there() {
    let mut browser = World::new().browser();
    for expected in 1..=3 {
        let count = |count: Option<u32>| count.unwrap_or(0) + 1;
        assert_eq!(
            browser
                .visit(|session| session.update("count", count))
                .await
                .unwrap(),
            expected
        );
    }
    let wrong = browser
        .visit(|session| session.update("count", |text: Option<String>| text.unwrap_or_default()));
    assert_eq!(wrong.await.unwrap_err().kind(), ErrorKind::InvalidValue);
    assert_eq!(browser.get::<u32>("count").await, Some(3));
}

#[tokio::test]
async fn changes_are_seen_within_the_request() {
    let mut browser = World::new().browser();
    browser
        .visit(|session| {
            assert!(session.is_new() && session.is_empty());
            session.insert("a", &1).unwrap();
            session.insert("b", &2).unwrap();
            session
                .update("a", |a: Option<i32>| a.unwrap() + 10)
                .unwrap();
            assert_eq!(session.get::<i32>("a").unwrap(), Some(11));
            assert!(session.contains("b") && session.remove("b") && !session.contains("b"));
            session.clear();
            assert!(session.is_empty());
            session.insert("c", &3).unwrap();
        })
        .await;
    assert_eq!(browser.visit(|session| session.keys()).await, ["c"]);
}
