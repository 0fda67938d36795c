//! Masking (RFC 6455 §5.3): byte `i` of a payload is XORed with byte `i mod 4` of the key. Done twice it is undone.

/// Masks or unmasks `payload` in place; its first byte meets `key[0]`.
///
/// Eight bytes at a time, in a loop that the compiler turns into vector instructions.
#[inline]
pub(super) fn apply(payload: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}

/// The key for what follows `done` bytes of the same payload.
#[inline]
pub(super) fn advance(mut key: [u8; 4], done: usize) -> [u8; 4] {
    key.rotate_left(done % 4);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

    fn naive(payload: &[u8]) -> Vec<u8> {
        payload
            .iter()
            .enumerate()
            .map(|(i, byte)| byte ^ KEY[i % 4])
            .collect()
    }

    #[test]
    fn every_length_at_every_alignment_equals_the_definition() {
        for start in 0..16 {
            for len in 0..200 {
                let mut buffer: Vec<u8> = (0..start + len).map(|i| (i * 7) as u8).collect();
                let expected = naive(&buffer[start..]);
                apply(&mut buffer[start..], KEY);
                assert_eq!(buffer[start..], expected, "start {start}, length {len}");
            }
        }
    }

    #[test]
    fn a_payload_may_be_unmasked_in_two_parts() {
        let payload: Vec<u8> = (0..40).collect();
        for cut in 0..=payload.len() {
            let mut parts = payload.clone();
            let (head, tail) = parts.split_at_mut(cut);
            apply(head, KEY);
            apply(tail, advance(KEY, cut));
            assert_eq!(parts, naive(&payload), "cut at {cut}");
        }
    }
}
