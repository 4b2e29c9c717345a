use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use serde::{
    Deserialize, Serialize, Serializer,
    de::DeserializeOwned,
    ser::{self, SerializeSeq},
};
use sessionkit::{ErrorKind, Session};

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
    // Each has a struct and a Some.
    let deep = (0..32).fold(None, |inner, depth| Some(Box::new(Nested { depth, inner })));
    check(deep).await;
}

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Host {
    address: IpAddr,
    ports: Option<BTreeMap<u16, String>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Nothing;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Internally {
    Unit,
    Empty(Nothing),
    Newtype(Host),
    Struct {
        host: SocketAddr,
        letter: char,
        bytes: [u8; 32],
        half: f32,
        waits: Duration,
        deeper: Box<Option<Self>>,
    },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "content")]
enum Adjacently {
    Unit,
    Address(Ipv6Addr),
    Tuple(IpAddr, Nothing),
    Struct { host: Host, shape: Shape },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Address(IpAddr),
    Host(Host),
    Tuple(SocketAddr, Internally),
    Map(BTreeMap<IpAddr, Vec<Adjacently>>),
    Number(i64),
    Nothing,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Flattened {
    name: String,
    #[serde(flatten)]
    host: Host,
    #[serde(flatten)]
    rest: BTreeMap<String, Untagged>,
}

fn host() -> Host {
    let ports = [(80, "http".to_owned()), (443, "https".to_owned())];
    Host {
        address: HERE,
        ports: Some(ports.into()),
    }
}

fn internally() -> [Internally; 4] {
    [
        Internally::Unit,
        Internally::Empty(Nothing),
        Internally::Newtype(host()),
        Internally::Struct {
            host: (HERE, 80).into(),
            letter: 'ß',
            bytes: [200; 32],
            half: 0.5,
            waits: Duration::from_millis(1_500),
            deeper: Box::new(Some(Internally::Unit)),
        },
    ]
}

fn adjacently() -> [Adjacently; 4] {
    [
        Adjacently::Unit,
        Adjacently::Address(Ipv6Addr::LOCALHOST),
        Adjacently::Tuple(HERE, Nothing),
        Adjacently::Struct {
            host: host(),
            shape: Shape::Tuple(1, "one".to_owned()),
        },
    ]
}

#[tokio::test]
async fn enums_of_every_representation_come_back_with_addresses_in_them() {
    check((host(), HERE, SocketAddr::from((HERE, 443)), Nothing)).await;
    for value in internally() {
        check(value).await;
    }
    for value in adjacently() {
        check(value).await;
    }
    let [.., deep] = internally();
    let map = BTreeMap::from([(HERE, adjacently().into())]);
    for value in [
        Untagged::Address(HERE),
        Untagged::Host(host()),
        Untagged::Tuple((HERE, 443).into(), deep),
        Untagged::Map(map),
        Untagged::Number(i64::MIN),
        Untagged::Nothing,
    ] {
        check(vec![value]).await;
    }
    check(Flattened {
        name: "web".to_owned(),
        host: host(),
        rest: [("more".to_owned(), Untagged::Address(HERE))].into(),
    })
    .await;
}

#[tokio::test]
async fn options_come_back_that_hold_something() {
    check((Some(Some(1)), None::<Option<u8>>, None::<Nothing>)).await;
}

#[tokio::test]
async fn maps_come_back_with_keys_of_every_kind() {
    check(BTreeMap::from([((1, 'a'), 1), ((2, 'b'), 2)])).await;
    check(BTreeMap::from([(true, None), (false, Some(1))])).await;
    check(BTreeMap::from([(None, 0), (Some(HERE), 1)])).await;
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Wide {
    Number(u128),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Transparent(Option<Box<Self>>);

#[tokio::test]
async fn what_would_not_be_read_back_is_refused_by_name_and_changes_nothing() {
    let mut browser = World::new().signed_in().await;
    let refuse = |session: &Session| {
        let refused = |written: sessionkit::Result<()>, reason: &str| {
            let error = written.expect_err(reason);
            assert_eq!(error.kind(), ErrorKind::InvalidValue, "{error}");
            let text = error.to_string();
            assert!(text.contains("\"user\"") && text.contains(reason), "{text}");
        };
        refused(session.insert("user", &1_u128), "128 bits");
        refused(session.insert("user", &i128::MIN), "128 bits");
        refused(session.insert("user", &Wide::Number(7)), "Wide");
        refused(session.insert("user", &Some(None::<u8>)), "None");
        refused(session.insert("user", &Some(())), "None");
        refused(session.insert("user", &Some(Nothing)), "None");
        refused(session.insert("user", &[Some(Some(None::<u8>))]), "None");
        refused(session.insert("user", &Some(Untagged::Nothing)), "None");
        let nested = Transparent(Some(Box::new(Transparent(None))));
        refused(session.insert("user", &nested), "Transparent");
        refused(session.flash_to("user", &Some(())), "None");
    };
    browser.visit(refuse).await;
    assert_eq!(
        browser.get::<String>("user").await.as_deref(),
        Some("alice")
    );
}

#[tokio::test]
async fn an_update_proves_that_its_value_is_read_back() {
    #[derive(Debug, Default, Serialize, Deserialize)]
    struct Forgetful {
        #[serde(skip_serializing)]
        kept: u8,
    }
    let mut browser = World::new().browser();
    browser
        .visit(|session| {
            let error = session
                .update("key", |_: Option<Forgetful>| Forgetful::default())
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidValue);
            assert!(error.to_string().contains("\"key\""));
            assert!(!session.contains("key"), "nothing has changed");
            let kept = |present: Option<Forgetful>| present.map_or(0, |present| present.kept);
            assert_eq!(session.get("key").map(kept).unwrap(), 0);
        })
        .await;
}

#[tokio::test]
async fn a_sequence_of_another_length_than_it_says_is_refused() {
    struct Liar(usize);
    impl Serialize for Liar {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut parts = serializer.serialize_seq(Some(self.0))?;
            parts.serialize_element(&1)?;
            parts.serialize_element(&2)?;
            parts.end()
        }
    }
    let session = World::new().browser().begin().session().await.unwrap();
    session.insert("key", &Liar(2)).unwrap();
    for length in [1, 3] {
        let error = session.insert("key", &Liar(length)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidValue);
    }
    assert_eq!(session.get::<Vec<u8>>("key").unwrap(), Some(vec![1, 2]));
}

/// Runs what may overflow the stack of a thread where there is little.
fn on_a_small_stack<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(f);
    thread.unwrap().join().unwrap()
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum List {
    End,
    More(Box<Self>),
    Both { first: Box<Self>, second: Box<Self> },
}

/// Drops a list without recursion.
struct Long(List);

impl Long {
    fn new(length: usize) -> Self {
        let more = |list, _| List::More(Box::new(list));
        Self((0..length).fold(List::End, more))
    }
}

impl Drop for Long {
    fn drop(&mut self) {
        let mut list = std::mem::replace(&mut self.0, List::End);
        while let List::More(next) = list {
            list = *next;
        }
    }
}

#[tokio::test]
async fn depth_is_bounded_when_a_value_is_written() {
    let session = World::new().browser().begin().session().await.unwrap();
    on_a_small_stack(move || {
        for length in [0, 1, 64] {
            let list = Long::new(length);
            session.insert("list", &list.0).unwrap();
            let read = session.get::<List>("list").unwrap().map(Long);
            assert!(read.is_some_and(|read| read.0 == list.0));
        }
        for length in [65, 2_000, 100_000] {
            let list = Long::new(length);
            let error = session.insert("list", &list.0).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidValue);
            assert!(error.to_string().contains("64 levels"), "{error}");
        }
    });
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
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
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
