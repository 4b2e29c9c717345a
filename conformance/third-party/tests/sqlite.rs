//! What the cases of the kit do not hit by themselves.

use std::time::Duration;

use sessionkit::{
    Clock, CookieName, Label, OsEntropy, Record, Revision, SystemClock, Timestamp, Token,
};
use sessionkit_conformance::Harness;
use sessionkit_conformance_third_party::Sqlite;

/// Expiries are stored as text, and a whole second is written without a fraction: `:07Z` comes
/// behind `:07.9Z` in the alphabet.
#[tokio::test]
async fn a_session_that_ends_on_a_whole_second_outlives_it() {
    let harness = Sqlite::new();
    let store = harness.open("kit_seconds").await.unwrap();
    for _ in 0..5 {
        let second = SystemClock.now().as_millis() / 1_000 + 1;
        let whole = Timestamp::from_millis(second * 1_000);
        let mut found = Vec::new();
        let (mut tokens, cookie) = (Vec::new(), CookieName::new("id").unwrap());
        for expires_at in [whole, whole + Duration::from_millis(1)] {
            let record = Record {
                data: "hello".into(),
                revision: Revision::from_bits(1),
                created_at: SystemClock.now(),
                expires_at,
                subject: None,
                label: Label::default(),
            };
            let token = Token::random(&OsEntropy, &cookie).unwrap();
            tokens.push(store.create(token, &record).await.unwrap());
        }
        let later = whole + Duration::from_millis(100);
        tokio::time::sleep(later.saturating_duration_since(SystemClock.now())).await;
        for token in &tokens {
            found.push(store.load(token).await.unwrap().is_some());
        }
        // On a busy machine the next second may have begun.
        if SystemClock.now() < whole + Duration::from_millis(900) {
            assert_eq!(found, [true, false]);
            return;
        }
    }
    panic!("the machine was too slow to look in time");
}
