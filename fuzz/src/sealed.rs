use sessionkit::{Entropy, Result};

use crate::support::{Counter, KEYRING};

const PURPOSE: &str = "fuzz";
const CONTEXT: &str = "sealed";

/// Where the nonce of a sealed value stands: behind the format and the id of the key.
const NONCE: std::ops::Range<usize> = 5..17;

/// [`sessionkit::Keyring::open`]: only what was sealed is taken, whole and for its purpose, and
/// sealing it again with the same nonce gives the same bytes.
pub fn sealed(input: &[u8]) -> bool {
    let taken = KEYRING.open(PURPOSE, CONTEXT, input);
    if let Some(opened) = &taken {
        let nonce = Fixed(input[NONCE].try_into().expect("a nonce has twelve bytes"));
        let again = KEYRING.seal(&nonce, PURPOSE, CONTEXT, &opened.payload);
        assert_eq!(again.expect("it was sealed before"), input);
    }
    let ours = KEYRING.seal(&Counter::default(), PURPOSE, CONTEXT, input);
    let mut ours = ours.expect("counting does not fail");
    let opened = KEYRING.open(PURPOSE, CONTEXT, &ours);
    assert_eq!(opened.expect("it is ours").payload, input);
    assert!(KEYRING.open(CONTEXT, PURPOSE, &ours).is_none());
    assert!(KEYRING.verify(PURPOSE, CONTEXT, &ours).is_none());
    // One bit, which the input chooses.
    let bits = ours.len() * 8;
    let bit = input
        .iter()
        .fold(0, |bit, &byte| (bit * 31 + usize::from(byte)) % bits);
    ours[bit / 8] ^= 1 << (bit % 8);
    assert!(KEYRING.open(PURPOSE, CONTEXT, &ours).is_none());
    taken.is_some()
}

#[derive(Debug)]
struct Fixed([u8; 12]);

impl Entropy for Fixed {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        bytes.copy_from_slice(&self.0);
        Ok(())
    }
}
