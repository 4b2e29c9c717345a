use crate::support::KEYRING;

const PURPOSE: &str = "fuzz";
const CONTEXT: &str = "signed";

/// [`sessionkit::Keyring::verify`]: only what was signed is taken, whole and for its purpose, and
/// signing it again gives the same bytes.
pub fn signed(input: &[u8]) -> bool {
    let taken = KEYRING.verify(PURPOSE, CONTEXT, input);
    if let Some(opened) = &taken {
        assert!(opened.current);
        assert_eq!(KEYRING.sign(PURPOSE, CONTEXT, &opened.payload), input);
    }
    let mut ours = KEYRING.sign(PURPOSE, CONTEXT, input);
    let opened = KEYRING.verify(PURPOSE, CONTEXT, &ours);
    assert_eq!(opened.expect("it is ours").payload, input);
    assert!(KEYRING.verify(CONTEXT, PURPOSE, &ours).is_none());
    assert!(KEYRING.open(PURPOSE, CONTEXT, &ours).is_none());
    // One bit, which the input chooses.
    let bits = ours.len() * 8;
    let bit = input
        .iter()
        .fold(0, |bit, &byte| (bit * 31 + usize::from(byte)) % bits);
    ours[bit / 8] ^= 1 << (bit % 8);
    assert!(KEYRING.verify(PURPOSE, CONTEXT, &ours).is_none());
    taken.is_some()
}
