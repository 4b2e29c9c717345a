//! The session that all groups measure: what a shop keeps of a visitor.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sessionkit::{Clock, CookieName, OsEntropy, Record, Revision, SystemClock, Timestamp, Token};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    pub article: u32,
    pub quantity: u8,
    pub price: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Visitor {
    pub user: u64,
    pub name: String,
    #[serde(with = "serde_bytes")]
    pub csrf: Vec<u8>,
    pub locale: String,
    pub cart: Vec<Item>,
    pub flash: String,
}

pub fn visitor() -> Visitor {
    Visitor {
        user: 4_711_000_815,
        name: "Grace Hopper".to_owned(),
        csrf: (0..32).map(|byte| byte * 7 + 3).collect(),
        locale: "en-GB".to_owned(),
        cart: (1..=5)
            .map(|number| Item {
                article: 100_000 + number * 37,
                quantity: number as u8,
                price: 1_999 * number,
            })
            .collect(),
        flash: "The article is in your cart.".to_owned(),
    }
}

/// The visitor as an application stores it, for the next hour.
pub fn record() -> Record {
    let data = rmp_serde::to_vec_named(&visitor()).expect("it is a value");
    Record {
        data: data.into(),
        revision: Revision::from_bits(7),
        created_at: Timestamp::from_millis(1_700_000_000_000),
        expires_at: SystemClock.now() + Duration::from_secs(3600),
        subject: None,
        label: Default::default(),
    }
}

pub fn new_token() -> Token {
    let name = CookieName::new("id").expect("a cookie name");
    Token::random(&OsEntropy, &name).expect("random bytes")
}

pub fn new_tokens(count: usize) -> Vec<Token> {
    (0..count).map(|_| new_token()).collect()
}
