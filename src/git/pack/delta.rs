//! Applying a delta to its base.

use super::MAX_OBJECT_IN_MEMORY;

/// The object that `delta` makes of `base`; the reason when the delta is not a valid one for it.
///
/// Format: `gitformat-pack(5)`, "Deltified representation".
pub(super) fn apply(base: &[u8], delta: &[u8]) -> Result<Vec<u8>, &'static str> {
    const SHORT: &str = "a delta that ends too early";
    let (base_len, delta) = size(delta).ok_or(SHORT)?;
    let (result_len, mut delta) = size(delta).ok_or(SHORT)?;
    if base_len != base.len() as u64 {
        return Err("a delta for a base of another size");
    }
    if result_len > MAX_OBJECT_IN_MEMORY {
        return Err("a delta whose result is larger than can be held in memory");
    }
    let result_len = usize::try_from(result_len).map_err(|_| SHORT)?;
    // Not `with_capacity(result_len)` alone: a few bytes must not be able to claim a quarter gigabyte.
    let mut result = Vec::with_capacity(result_len.min(base.len().saturating_add(delta.len())));
    while let Some((&op, rest)) = delta.split_first() {
        let bytes;
        if op & 0x80 == 0 {
            if op == 0 {
                return Err("a delta with the reserved instruction 0");
            }
            (bytes, delta) = rest.split_at_checked(usize::from(op)).ok_or(SHORT)?;
        } else {
            let (start, rest) = operand(rest, op, 4).ok_or(SHORT)?;
            let (len, rest) = operand(rest, op >> 4, 3).ok_or(SHORT)?;
            let len = if len == 0 { 0x10000 } else { len };
            bytes = base
                .get(start..start.saturating_add(len))
                .ok_or("a delta that copies from beyond its base")?;
            delta = rest;
        }
        if result.len() + bytes.len() > result_len {
            return Err("a delta that makes more than it declares");
        }
        result.extend_from_slice(bytes);
    }
    if result.len() == result_len { Ok(result) } else { Err("a delta that makes less than it declares") }
}

/// A little-endian number whose `width` bytes are present where `mask` has a bit.
fn operand(mut data: &[u8], mask: u8, width: u32) -> Option<(usize, &[u8])> {
    let mut value = 0_usize;
    for byte in 0..width {
        if mask & (1 << byte) != 0 {
            let (&next, rest) = data.split_first()?;
            value |= usize::from(next) << (8 * byte);
            data = rest;
        }
    }
    Some((value, data))
}

/// A size at the head of a delta: seven bits a byte, least significant first.
fn size(mut data: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = data.split_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        data = rest;
        if byte & 0x80 == 0 {
            return Some((value, data));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn copies_and_inserts() {
        // base 10 bytes, result 7: copy 4 from offset 2, insert "xyz".
        let delta = [10, 7, 0x91, 2, 4, 3, b'x', b'y', b'z'];
        assert_eq!(apply(b"0123456789", &delta), Ok(b"2345xyz".to_vec()));
        assert!(apply(b"012345678", &delta).is_err());
        assert!(apply(b"0123456789", &delta[..8]).is_err());
        assert!(apply(b"0123456789", &[10, 1, 0]).is_err());
        assert!(apply(b"0123456789", &[10, 9, 0x91, 2, 9]).is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_not_a_panic(base: Vec<u8>, delta: Vec<u8>) {
            let _ = apply(&base, &delta);
        }
    }
}
