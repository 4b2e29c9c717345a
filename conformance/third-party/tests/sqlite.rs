//! What the cases of the kit do not hit by themselves.

use std::time::Duration;

use sessionkit::{
    Clock, CookieName, Label, OsEntropy, Record, Revision, SystemClock, Timestamp, Token,
};
use sessionkit_conformance::Harness;
use sessionkit_conformance_third_party::Sqlite;

/// Expiries are stored as text, and a whole second is written without a fraction: `:07Z` comes
/// behind `:07.9Z` in the alphabet. What ended with the second that has just begun is still there,
/// and what ended a millisecond later is not.
#[tokio::test]
async fn a_session_that_ends_on_a_whole_second_outlives_it() {
    let harness = Sqlite::new();
    let store = harness.open("kit_seconds").await.unwrap();
    let cookie = CookieName::new("id").unwrap();
    // The store has no clock but the real one. What it answers counts when both of its answers fell
    // into one second, behind both expiries.
    let found = loop {
        let begun = SystemClock.now();
        let whole = Timestamp::from_millis(begun.as_millis() / 1_000 * 1_000);
        let mut found = Vec::new();
        for expires_at in [whole, whole + Duration::from_millis(1)] {
            let record = Record {
                data: "hello".into(),
                revision: Revision::from_bits(1),
                created_at: whole,
                expires_at,
                subject: None,
                label: Label::default(),
            };
            let token = Token::random(&OsEntropy, &cookie).unwrap();
            let token = store.create(token, &record).await.unwrap();
            found.push(store.load(&token).await.unwrap().is_some());
        }
        let ended = SystemClock.now();
        if begun > whole + Duration::from_millis(1) && ended < whole + Duration::from_secs(1) {
            break found;
        }
    };
    assert_eq!(found, [true, false]);
}
