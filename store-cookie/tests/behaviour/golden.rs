//! Tokens of every released format, which later versions have to go on reading.

use std::{sync::Arc, sync::atomic::AtomicU8, sync::atomic::Ordering};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sessionkit::{
    Entropy, Key, Keyring, Label, ManualClock, Record, Result, Revision, SessionStore, Subject,
    Timestamp, Token,
};
use sessionkit_cookie::CookieStore;

use crate::support::{START, cookie};

const SEALED: &str = concat!(
    "Ahil7ioQERITFBUWFxgZGhu6nYtpEqFU3hmyRFF_81RATrmIRcyrLz8hKqPVXZPM7bFh1NtuM8VqDsuVUssfq0yW",
    "7DN7iM99FS424yuXmIEvpTqT0kqBGnkTlmQ7sx7iVMcmczzkcPkIJ4Pi-Sa7YEyN9ZIBXxREVOJuY8ytzshw5aW_",
    "z_b-x3qKdY1XAlbQeP_at1DB67blo2p5W5r_8Qj6_nlPjTzOQkAd1Ugkv8QOjXwEwDOBlxo5-aHDUvm0qEcb1y8T",
    "9otD07bY947PmhfVhz6Pjr2HW4yXCr-jN0TiqnS0B1Yl5UyAacFbiDl8NePoa4jnrU0hUgdMEuMxmIErdkup2-Ja",
    "KcHEwasZSbX1mnz7BmyXRdj-LRb30sgmnfpufR900CgR6tsCYlAoZMCVv3fZ7dNLdznjHVnrWt-s_5gJYb4Hrdo_",
    "0kOLwCKHe0YO98cGkESZP2x0",
);
const SIGNED: &str = concat!(
    "ARil7ioCAAECAwQFBgcICQoLDA0ODwDvzauJZ0UjAYCgq_75YgL-7_6h-p1zAQd1c2VyLTQyB0ZpcmVmb3iAAgAB",
    "AgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj9AQUJD",
    "REVGR0hJSktMTU5PUFFSU1RVVldYWVpbXF1eX2BhYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ent8fX5_gIGCg4SF",
    "hoeIiYqLjI2Oj5CRkpOUlZaXmJmam5ydnp-goaKjpKWmp6ipqqusra6vsLGys7S1tre4ubq7vL2-v8DBwsPExcbH",
    "yMnKy8zNzs_Q0dLT1NXW19jZ2tvc3d7f4OHi4-Tl5ufo6err7O3u7_Dx8vP09fb3-Pn6-_z9_v8eQaVAr2cpW0yP",
    "jG_ZRC3MWtghOMFOV4LejBplZ8YI9A",
);

/// Gives a fixed sequence, for a fixed token.
#[derive(Debug, Default)]
struct Counter(AtomicU8);

impl Entropy for Counter {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        bytes.fill_with(|| self.0.fetch_add(1, Ordering::Relaxed));
        Ok(())
    }
}

fn stores() -> [CookieStore; 2] {
    let key = Key::parse("jHnZ0d8oQ0cB7wWcV4m2J9b5t6uPq1XyKzLrSsTfUeE=").unwrap();
    let keyring = Keyring::new([key]).unwrap();
    [
        CookieStore::new(keyring.clone()),
        CookieStore::signed_only(keyring),
    ]
    .map(|store| {
        store
            .with_clock(Arc::new(ManualClock::new(START)))
            .with_entropy(Arc::new(Counter::default()))
    })
}

fn record() -> Record {
    Record {
        data: (0..=255).collect(),
        revision: Revision::from_bits(0x0123_4567_89ab_cdef),
        created_at: Timestamp::from_millis(1),
        expires_at: Timestamp::MAX,
        subject: Some(Subject::new("user-42").unwrap()),
        label: Label::new("Firefox").unwrap(),
    }
}

#[tokio::test]
async fn tokens_of_format_2_are_read() {
    for (store, golden) in stores().into_iter().zip([SEALED, SIGNED]) {
        let bytes = URL_SAFE_NO_PAD.decode(golden).unwrap();
        let token = Token::from_bytes(bytes, &cookie("__Host-id"));
        assert_eq!(store.load(&token).await.unwrap(), Some(record()));
    }
}

/// Changing what is written is fine, with a new format byte and a new golden token.
#[tokio::test]
async fn tokens_are_written_in_format_2() {
    for (store, golden) in stores().into_iter().zip([SEALED, SIGNED]) {
        let token = Token::from_bytes(Vec::new(), &cookie("__Host-id"));
        let token = store.create(token, &record()).await.unwrap();
        assert_eq!(URL_SAFE_NO_PAD.encode(token.expose()), golden);
    }
}
