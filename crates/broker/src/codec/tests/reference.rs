//! DEFLATE (RFC 1951) as simply as it can be read, bit by bit: an inflater that shares nothing with the real one.

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> usize {
        (0..count).fold(0, |value, n| {
            let bit = self.bytes[self.at / 8] >> (self.at % 8) & 1;
            self.at += 1;
            value | usize::from(bit) << n
        })
    }

    /// How many bits are left.
    fn left(&self) -> usize {
        self.bytes.len() * 8 - self.at
    }
}

/// Canonical codes: how many there are of each length, and their symbols in order (§3.2.2).
struct Huffman {
    counts: [usize; 16],
    symbols: Vec<usize>,
}

impl Huffman {
    fn new(lengths: &[usize]) -> Self {
        let mut coded: Vec<(usize, usize)> = lengths
            .iter()
            .enumerate()
            .map(|(symbol, length)| (*length, symbol))
            .filter(|(length, _)| *length > 0)
            .collect();
        coded.sort_unstable();
        let mut counts = [0; 16];
        for (length, _) in &coded {
            counts[*length] += 1;
        }
        Self {
            counts,
            symbols: coded.into_iter().map(|(_, symbol)| symbol).collect(),
        }
    }

    fn symbol(&self, bits: &mut Bits<'_>) -> usize {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for count in &self.counts[1..] {
            code |= bits.take(1);
            if code < first + count {
                return self.symbols[index + code - first];
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        panic!("no such code");
    }
}

/// Base and extra bits of a length or distance symbol (§3.2.5).
fn extended(bits: &mut Bits<'_>, symbol: usize, per_extra: usize, base: usize) -> usize {
    let extra = (symbol / per_extra).saturating_sub(1);
    let offset = match symbol < per_extra {
        true => symbol,
        false => (per_extra + symbol % per_extra) << extra,
    };
    base + offset + bits.take(extra)
}

fn fixed() -> (Huffman, Huffman) {
    let lengths: Vec<usize> = (0..288)
        .map(|n| match n {
            0..144 => 8,
            144..256 => 9,
            256..280 => 7,
            _ => 8,
        })
        .collect();
    (Huffman::new(&lengths), Huffman::new(&[5; 30]))
}

fn dynamic(bits: &mut Bits<'_>) -> (Huffman, Huffman) {
    const ORDER: [usize; 19] = [
        16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
    ];
    let (literals, distances) = (bits.take(5) + 257, bits.take(5) + 1);
    let mut code_lengths = [0; 19];
    for n in 0..bits.take(4) + 4 {
        code_lengths[ORDER[n]] = bits.take(3);
    }
    let codes = Huffman::new(&code_lengths);
    let mut lengths = Vec::new();
    while lengths.len() < literals + distances {
        let (value, count) = match codes.symbol(bits) {
            16 => (lengths[lengths.len() - 1], 3 + bits.take(2)),
            17 => (0, 3 + bits.take(3)),
            18 => (0, 11 + bits.take(7)),
            length => (length, 1),
        };
        lengths.resize(lengths.len() + count, value);
    }
    let (literals, distances) = lengths.split_at(literals);
    (Huffman::new(literals), Huffman::new(distances))
}

/// Appends to `out`, which holds what came before; nothing may refer further back than `window`.
pub(super) fn inflate(bytes: &[u8], out: &mut Vec<u8>, window: usize) {
    let mut bits = Bits { bytes, at: 0 };
    while bits.left() > 0 {
        assert_eq!(bits.take(1), 0, "no block is the last");
        let (literals, distances) = match bits.take(2) {
            0 => {
                bits.at = bits.at.next_multiple_of(8);
                let (length, check) = (bits.take(16), bits.take(16));
                assert_eq!(length ^ check, 0xFFFF);
                out.extend((0..length).map(|_| bits.take(8) as u8));
                continue;
            }
            1 => fixed(),
            2 => dynamic(&mut bits),
            _ => panic!("a block of no type"),
        };
        loop {
            let length = match literals.symbol(&mut bits) {
                literal @ 0..256 => {
                    out.push(literal as u8);
                    continue;
                }
                256 => break,
                285 => 258,
                symbol => extended(&mut bits, symbol - 257, 4, 3),
            };
            let symbol = distances.symbol(&mut bits);
            let distance = extended(&mut bits, symbol, 2, 1);
            assert!(distance <= window, "{distance} of {window}");
            assert!(distance <= out.len(), "{distance} of {}", out.len());
            for _ in 0..length {
                out.push(out[out.len() - distance]);
            }
        }
    }
}
