//! The shape of MessagePack, without a look at what it says.

/// Whether the bytes are exactly one value of at most `max_depth` levels. It takes time in
/// proportion to the bytes and no stack, whatever they are.
pub(super) fn is_whole(bytes: &[u8], max_depth: usize) -> bool {
    // How many values each open array or map still has; the outermost is the value itself.
    let mut open = vec![1_u64];
    let mut rest = bytes;
    while let Some(left) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        *left -= 1;
        let Some((head, after)) = head(rest) else {
            return false;
        };
        rest = after;
        match head {
            Head::Holds(0) => {}
            Head::Holds(_) if open.len() > max_depth => return false,
            Head::Holds(values) => open.push(values),
            Head::Takes(len) => match rest.split_at_checked(len) {
                Some((_, after)) => rest = after,
                None => return false,
            },
        }
    }
    rest.is_empty()
}

/// What follows the first byte and the length of a value.
enum Head {
    /// This many values.
    Holds(u64),
    /// This many bytes.
    Takes(usize),
}

fn head(bytes: &[u8]) -> Option<(Head, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let bytes = |len, rest| Some((Head::Takes(len), rest));
    let values = |count, rest| Some((Head::Holds(count), rest));
    match first {
        0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => bytes(0, rest),
        0x80..=0x8f => values(2 * u64::from(first & 0x0f), rest),
        0x90..=0x9f => values(u64::from(first & 0x0f), rest),
        0xa0..=0xbf => bytes(usize::from(first & 0x1f), rest),
        // Never used.
        0xc1 => None,
        // Bytes and texts.
        0xc4 | 0xd9 => length(rest, 1).and_then(|(len, rest)| bytes(len, rest)),
        0xc5 | 0xda => length(rest, 2).and_then(|(len, rest)| bytes(len, rest)),
        0xc6 | 0xdb => length(rest, 4).and_then(|(len, rest)| bytes(len, rest)),
        // Extensions, which have a type in one byte more.
        0xc7 => length(rest, 1).and_then(|(len, rest)| bytes(len.checked_add(1)?, rest)),
        0xc8 => length(rest, 2).and_then(|(len, rest)| bytes(len.checked_add(1)?, rest)),
        0xc9 => length(rest, 4).and_then(|(len, rest)| bytes(len.checked_add(1)?, rest)),
        0xd4..=0xd8 => bytes(1 + (1 << (first - 0xd4)), rest),
        // Numbers.
        0xcc | 0xd0 => bytes(1, rest),
        0xcd | 0xd1 => bytes(2, rest),
        0xca | 0xce | 0xd2 => bytes(4, rest),
        0xcb | 0xcf | 0xd3 => bytes(8, rest),
        0xdc => length(rest, 2).and_then(|(count, rest)| values(count.try_into().ok()?, rest)),
        0xdd => length(rest, 4).and_then(|(count, rest)| values(count.try_into().ok()?, rest)),
        0xde => {
            length(rest, 2).and_then(|(pairs, rest)| values(2 * u64::try_from(pairs).ok()?, rest))
        }
        0xdf => {
            length(rest, 4).and_then(|(pairs, rest)| values(2 * u64::try_from(pairs).ok()?, rest))
        }
    }
}

/// A length in this many bytes, the most significant first.
fn length(bytes: &[u8], size: usize) -> Option<(usize, &[u8])> {
    let (digits, rest) = bytes.split_at_checked(size)?;
    let length = digits
        .iter()
        .fold(0_u64, |length, &digit| length << 8 | u64::from(digit));
    Some((length.try_into().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::is_whole;

    #[test]
    fn every_kind_of_value_has_its_length() {
        for (value, what) in [
            (&b"\x00"[..], "fixint"),
            (b"\xff", "negative fixint"),
            (b"\xc0", "nil"),
            (b"\xc3", "true"),
            (b"\x82\x01\x02\x03\x04", "fixmap"),
            (b"\x92\x01\x02", "fixarray"),
            (b"\xa2ab", "fixstr"),
            (b"\xc4\x02ab", "bin 8"),
            (b"\xc5\x00\x02ab", "bin 16"),
            (b"\xc6\x00\x00\x00\x02ab", "bin 32"),
            (b"\xc7\x02\x01ab", "ext 8"),
            (b"\xc8\x00\x02\x01ab", "ext 16"),
            (b"\xc9\x00\x00\x00\x02\x01ab", "ext 32"),
            (b"\xd4\x01a", "fixext 1"),
            (b"\xd6\x01abcd", "fixext 4"),
            (b"\xca\x00\x00\x00\x00", "float 32"),
            (b"\xcb\x00\x00\x00\x00\x00\x00\x00\x00", "float 64"),
            (b"\xcc\xff", "uint 8"),
            (b"\xd1\xff\xff", "int 16"),
            (b"\xd2\xff\xff\xff\xff", "int 32"),
            (b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", "uint 64"),
            (b"\xd9\x02ab", "str 8"),
            (b"\xda\x00\x02ab", "str 16"),
            (b"\xdb\x00\x00\x00\x02ab", "str 32"),
            (b"\xdc\x00\x02\x01\x02", "array 16"),
            (b"\xdd\x00\x00\x00\x02\x01\x02", "array 32"),
            (b"\xde\x00\x01\x01\x02", "map 16"),
            (b"\xdf\x00\x00\x00\x01\x01\x02", "map 32"),
        ] {
            assert!(is_whole(value, 1), "{what}");
            assert!(!is_whole(&value[..value.len() - 1], 1), "a shorter {what}");
            assert!(!is_whole(&[value, b"\x00"].concat(), 1), "a longer {what}");
        }
        assert!(!is_whole(b"\xc1", 1));
    }

    #[test]
    fn depth_is_counted_and_a_huge_length_costs_nothing() {
        let nested = |levels| [vec![0x91; levels], vec![0x00]].concat();
        assert!(is_whole(&nested(8), 8));
        assert!(!is_whole(&nested(9), 8));
        assert!(!is_whole(&vec![0x91; 1_000_000], 8));
        assert!(!is_whole(b"\xdd\xff\xff\xff\xff", 8));
        assert!(!is_whole(b"\xdf\xff\xff\xff\xff\x00\x00", 8));
    }
}
