use sessionkit::{ErrorKind, Label, Origin, Session, SessionStore, Subject};

use crate::support::{Browser, World};

fn subject(name: &str) -> Subject {
    Subject::new(name).unwrap()
}

async fn sign_in(world: &World, name: &str, label: &str) -> Browser {
    let mut browser = world.browser();
    browser
        .visit(|session| {
            session.renew();
            session.set_label(Label::new(label).unwrap());
            session.set_subject(Some(subject(name)))
        })
        .await
        .unwrap();
    browser
}

async fn labels(world: &World, name: &str) -> Vec<String> {
    let sessions = world
        .manager
        .subject_sessions(&subject(name))
        .await
        .unwrap();
    let mut labels: Vec<_> = sessions
        .iter()
        .map(|session| session.label.as_str().to_owned())
        .collect();
    labels.sort();
    labels
}

#[tokio::test]
async fn the_sessions_of_a_subject_are_listed_with_their_labels() {
    let world = World::new();
    sign_in(&world, "alice", "phone").await;
    sign_in(&world, "alice", "laptop").await;
    sign_in(&world, "Alice", "stranger").await;
    sign_in(&world, "alice ", "stranger").await;
    assert_eq!(labels(&world, "alice").await, ["laptop", "phone"]);
    assert!(labels(&world, "%").await.is_empty());
}

#[tokio::test]
async fn the_list_follows_renewal_sign_out_and_change_of_subject() {
    let world = World::new();
    let mut phone = sign_in(&world, "alice", "phone").await;
    let mut laptop = sign_in(&world, "alice", "laptop").await;
    phone.visit(|session| session.renew()).await;
    assert_eq!(labels(&world, "alice").await, ["laptop", "phone"]);
    phone
        .visit(|session| session.set_subject(Some(subject("bob"))))
        .await
        .unwrap();
    assert_eq!(labels(&world, "alice").await, ["laptop"]);
    assert_eq!(labels(&world, "bob").await, ["phone"]);
    phone
        .visit(|session| session.set_subject(None))
        .await
        .unwrap();
    laptop.visit(|session| session.destroy()).await;
    assert!(labels(&world, "alice").await.is_empty());
    assert!(labels(&world, "bob").await.is_empty());
    assert_eq!(world.store.inner.len(), 1);
}

#[tokio::test]
async fn one_session_can_be_ended_by_its_owner_only() {
    let world = World::new();
    let mut phone = sign_in(&world, "alice", "phone").await;
    let key = phone.visit(Session::store_key).await.unwrap();
    assert!(!world.manager.revoke(&subject("bob"), &key).await.unwrap());
    assert_eq!(phone.visit(Session::origin).await, Origin::Stored);
    assert!(world.manager.revoke(&subject("alice"), &key).await.unwrap());
    assert!(!world.manager.revoke(&subject("alice"), &key).await.unwrap());
    assert_eq!(phone.visit(Session::origin).await, Origin::Ended);
}

#[tokio::test]
async fn all_sessions_can_be_ended_or_all_but_the_present_one() {
    let world = World::new();
    let mut phone = sign_in(&world, "alice", "phone").await;
    let mut laptop = sign_in(&world, "alice", "laptop").await;
    let mut other = sign_in(&world, "bob", "desktop").await;

    let sessions = phone.begin();
    let session = sessions.session().await.unwrap();
    // As after a change of the password: the present token changes too.
    session.renew();
    assert_eq!(session.revoke_others().await.unwrap(), 1);
    phone.finish(&sessions).await.unwrap();
    assert_eq!(phone.visit(Session::origin).await, Origin::Stored);
    assert_eq!(laptop.visit(Session::origin).await, Origin::Ended);

    assert_eq!(
        world.manager.revoke_all(&subject("alice")).await.unwrap(),
        1
    );
    assert_eq!(phone.visit(Session::origin).await, Origin::Ended);
    assert_eq!(other.visit(Session::origin).await, Origin::Stored);
}

#[tokio::test]
async fn a_request_in_flight_does_not_undo_a_revocation() {
    let world = World::new();
    let mut phone = sign_in(&world, "alice", "phone").await;
    let in_flight = phone.begin();
    in_flight
        .session()
        .await
        .unwrap()
        .insert("late", &1)
        .unwrap();
    world.manager.revoke_all(&subject("alice")).await.unwrap();
    assert!(phone.finish(&in_flight).await.is_err());
    assert!(phone.set_cookies().is_empty());
    assert!(world.store.inner.is_empty());
}

#[test]
fn characters_that_steer_how_a_text_is_shown_are_refused() {
    let refused = ('\0'..='\u{1f}')
        .chain('\u{7f}'..='\u{9f}')
        .chain(['\u{2028}', '\u{2029}'])
        .chain('\u{202a}'..='\u{202e}')
        .chain('\u{2066}'..='\u{2069}');
    for character in refused {
        for text in [
            format!("{character}"),
            format!("alice{character}"),
            format!("{character}a"),
        ] {
            let error = Subject::new(text.clone()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidValue, "{text:?}");
            assert_eq!(error.to_string(), "a subject has no control characters");
            assert_eq!(
                Label::new(&text).unwrap_err().kind(),
                ErrorKind::InvalidValue
            );
            // A record from before the rule can be read, and listed.
            assert_eq!(Subject::from_stored(text.clone()).unwrap().as_str(), text);
            assert_eq!(Label::from_stored(&text).unwrap().as_str(), text);
        }
    }
    for text in [
        "Größe 10",
        "\u{200f}\u{5d0}",
        "e\u{301}",
        "👩\u{200d}💻",
        "a b",
        "\u{a0}",
        "\u{fffd}",
    ] {
        assert!(
            Subject::new(text).is_ok() && Label::new(text).is_ok(),
            "{text:?}"
        );
    }
    assert!(Subject::from_stored("").is_err() && Subject::from_stored("a".repeat(256)).is_err());
    assert!(Label::from_stored(&"a".repeat(256)).is_err());
}

#[tokio::test]
async fn a_session_with_a_label_from_before_the_rule_for_characters_lives_on() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let label = Label::from_stored("a\u{1}b\u{202e}").unwrap();
    browser
        .visit(|session| {
            session.set_label(label.clone());
            session.set_subject(Some(Subject::from_stored("a\nb").unwrap()))
        })
        .await
        .unwrap();
    browser
        .visit(|session| session.insert("key", &1))
        .await
        .unwrap();
    assert_eq!(browser.visit(|session| session.label()).await, label);
    let subject = browser.visit(|session| session.subject()).await.unwrap();
    let listed = browser.manager.subject_sessions(&subject).await.unwrap();
    assert_eq!(listed.len(), 1);
}

#[tokio::test]
async fn subjects_and_labels_have_limits() {
    assert_eq!(
        Subject::new("").unwrap_err().kind(),
        ErrorKind::InvalidValue
    );
    assert_eq!(
        Subject::new("a".repeat(256)).unwrap_err().kind(),
        ErrorKind::InvalidValue
    );
    assert_eq!(
        Label::new(&"a".repeat(256)).unwrap_err().kind(),
        ErrorKind::InvalidValue
    );
    let error = World::new()
        .signed_in()
        .await
        .begin()
        .session()
        .await
        .unwrap();
    assert_eq!(
        error.revoke_others().await.unwrap_err().kind(),
        ErrorKind::Unsupported
    );
}

#[tokio::test]
async fn an_index_lists_in_pages() {
    let world = World::new();
    for number in 0..10 {
        sign_in(&world, "alice", &format!("device {number}")).await;
    }
    let index = world.store.inner.subjects().unwrap();
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = index
            .list(&subject("alice"), after.as_ref(), 3)
            .await
            .unwrap();
        assert!(page.len() <= 3 && page.is_sorted_by_key(|session| session.key));
        let Some(last) = page.last() else { break };
        after = Some(last.key);
        seen.extend(page);
    }
    assert_eq!(seen.len(), 10);
}
