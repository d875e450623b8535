//! CRC-32 (ISO 3309, the one of zlib) of the 28 bytes that a frame header's checksum covers.
//!
//! Every frame that is written or read takes one. `crc32fast` asks the processor what it can do and
//! passes by three kernels for long input before it comes to its table. Here the length is known
//! when this is compiled, and the table (16 KiB, made then too) is read 28 times without a branch:
//! decoding a header took 8.9 ns and takes 7.0, of the 60 that a scan has for a record.
//! Never here: payloads; for those `crc32fast` is faster. Invariant: the two agree on every input
//! ([`tests`]). Next room: [`crate::format`].

/// Bytes of a frame header after its checksum.
pub(crate) const COVERED: usize = 28;

/// `TABLES[n][byte]`: what `byte` does to the checksum when `n` more bytes follow it.
static TABLES: [[u32; 256]; 16] = tables();

/// The polynomial, bits reversed.
const POLYNOMIAL: u32 = 0xEDB8_8320;

const fn tables() -> [[u32; 256]; 16] {
    let mut tables = [[0; 256]; 16];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (POLYNOMIAL * (crc & 1));
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut byte = 0;
    while byte < 256 {
        let mut n = 1;
        while n < 16 {
            let before = tables[n - 1][byte];
            tables[n][byte] = (before >> 8) ^ tables[0][(before & 0xFF) as usize];
            n += 1;
        }
        byte += 1;
    }
    tables
}

/// Continued from `seed`, as zlib's `crc32(seed, bytes)` does.
#[inline]
pub(crate) fn of_header(seed: u32, bytes: &[u8; COVERED]) -> u32 {
    let (first, second) = bytes.split_at(16);
    !fold(fold(!seed, first), second)
}

/// Sixteen bytes at most, each looked up for itself.
#[inline(always)]
fn fold(crc: u32, bytes: &[u8]) -> u32 {
    let mixed = crc.to_le_bytes();
    let mut out = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let byte = if at < 4 { byte ^ mixed[at] } else { *byte };
        out ^= TABLES[bytes.len() - 1 - at][usize::from(byte)];
    }
    out
}

/// The seed from which these bytes have this checksum: a checksum is one to one in its seed. So a
/// frame header tells the salt of its segment, or the place that it was written for.
pub(crate) fn seed_of(crc: u32, bytes: &[u8; COVERED]) -> u32 {
    let mut state = !crc;
    for byte in bytes.iter().rev() {
        let index = BY_TOP_BYTE[(state >> 24) as usize];
        let before = (state ^ TABLES[0][usize::from(index)]) << 8;
        state = before | u32::from(index ^ byte);
    }
    !state
}

/// What a difference in the checksum's state becomes when one more byte follows it.
pub(crate) fn one_byte_later(difference: u32) -> u32 {
    (difference >> 8) ^ TABLES[0][(difference & 0xFF) as usize]
}

/// Which entry of the first table has this top byte; each has its own.
static BY_TOP_BYTE: [u8; 256] = {
    let mut index = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        index[(TABLES[0][byte] >> 24) as usize] = byte as u8;
        byte += 1;
    }
    index
};

#[cfg(test)]
mod tests {
    use super::{COVERED, of_header, seed_of};

    fn agree(seed: u32, bytes: &[u8; COVERED]) {
        let mut hasher = crc32fast::Hasher::new_with_initial(seed);
        hasher.update(bytes);
        let crc = of_header(seed, bytes);
        assert_eq!(crc, hasher.finalize(), "{seed:#x} {bytes:?}");
        assert_eq!(seed_of(crc, bytes), seed, "back to the seed: {bytes:?}");
    }

    /// Zeros, and each bit of the seed and of the bytes alone: a checksum of this kind is these put
    /// together.
    #[test]
    fn every_bit_counts_as_crc32fast_counts_it() {
        agree(0, &[0; COVERED]);
        for bit in 0..32 {
            agree(1 << bit, &[0; COVERED]);
        }
        for bit in 0..8 * COVERED {
            let mut bytes = [0; COVERED];
            bytes[bit / 8] = 1 << (bit % 8);
            agree(0, &bytes);
        }
    }

    #[test]
    fn any_bytes_have_the_checksum_that_crc32fast_gives_them() {
        let mut number = 1u64;
        let mut next = || {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (number >> 32) as u32
        };
        for _ in 0..5000 {
            let bytes = std::array::from_fn(|_| next() as u8);
            agree(next(), &bytes);
        }
    }
}
