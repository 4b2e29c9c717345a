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
    "Ahil7ioQERITFBUWFxgZGhu5nYtpEqFU3hmyRFF_81RATlaqI-5FDVkDq4PeCJRXjU1wxYQ1VCsYCLmTRNxAskqj",
    "rRxgn8x0Ata04SqUmYYupjuc00mAHXgQl3s6sB_lVcQnfD3ncf4JJILd-CW6Z02O9J0AXBVDVeFvfM2uz89x5qSw",
    "zvX_wHuJdPJWAVfXefzbuFHC6rHkoGtmWpn-9gn5_3ZOjj3JQ0Mc6kknvsMPjn0LwTCAkBs6-L7CUfizqUQa2C4Q",
    "94xC0Lcn9o3OnRbWhjGOjbyAWo-WFb6gNkPjqXW7BlUk4k2DaP5aizh7NODpZInkrEogUQZTE-Awn4Aod0So2ONd",
    "KMLFvqoaSLL0mX30B2-WQtn9LAn20ckhnPlvch530S8Q6do9Y1MpY8GWvnjY7tJMdjriAljoW9it_JkGYL0Gqts8",
    "08MeULHc7T2fzOcIX3-NXnQ",
);
const SIGNED: &str = concat!(
    "ARil7ioBAAECAwQFBgcICQoLDA0OD-_Nq4lnRSMBgKCr_vliAv7v_qH6nXMBB3VzZXItNDIHRmlyZWZveIACAAEC",
    "AwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0-P0BBQkNE",
    "RUZHSElKS0xNTk9QUVJTVFVWV1hZWltcXV5fYGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn-AgYKDhIWG",
    "h4iJiouMjY6PkJGSk5SVlpeYmZqbnJ2en6ChoqOkpaanqKmqq6ytrq-wsbKztLW2t7i5uru8vb6_wMHCw8TFxsfI",
    "ycrLzM3Oz9DR0tPU1dbX2Nna29zd3t_g4eLj5OXm5-jp6uvs7e7v8PHy8_T19vf4-fr7_P3-_4CX5gqPlDfD9Ssw",
    "smWh_ncMxPpmQvfUOQ48gGsORa9G",
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
async fn tokens_of_format_1_are_read() {
    for (store, golden) in stores().into_iter().zip([SEALED, SIGNED]) {
        let bytes = URL_SAFE_NO_PAD.decode(golden).unwrap();
        let token = Token::from_bytes(bytes, &cookie("__Host-id"));
        assert_eq!(store.load(&token).await.unwrap(), Some(record()));
    }
}

/// Changing what is written is fine, with a new format byte and a new golden token.
#[tokio::test]
async fn tokens_are_written_in_format_1() {
    for (store, golden) in stores().into_iter().zip([SEALED, SIGNED]) {
        let token = Token::from_bytes(Vec::new(), &cookie("__Host-id"));
        let token = store.create(token, &record()).await.unwrap();
        assert_eq!(URL_SAFE_NO_PAD.encode(token.expose()), golden);
    }
}
