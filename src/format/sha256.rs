//! SHA-256 of one stream of bytes, or of two in step.
//!
//! While it is unpacked, a file is hashed twice: as part of its nar, and alone for `.links`. The SHA
//! instructions of a processor wait for the previous result of the same stream, but not for that of
//! another one, so that two streams in step take little longer than one: the benchmark
//! `sha256_two_in_step` processes 1.8 times the bytes per second of `sha256_two_in_turns` on AMD
//! Zen 3, 1.2 times on Intel Ice Lake. Without these instructions the streams take turns.

#[cfg(target_arch = "x86_64")]
mod in_step;

use sha2::block_api::compress256;

const BLOCK_BYTES: usize = 64;

/// What the length in bits takes up at the end of the last block.
const LENGTH_BYTES: usize = 8;

/// The fractional parts of the square roots of the first eight primes: FIPS 180-4, 5.3.3.
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The SHA-256 computation of one stream.
pub struct Sha256 {
    state: [u32; 8],
    /// The beginning of a block that is not complete: `length % 64` bytes.
    pending: [u8; BLOCK_BYTES],
    length: u64,
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl Sha256 {
    /// A computation of no bytes so far.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: INITIAL,
            pending: [0; BLOCK_BYTES],
            length: 0,
        }
    }

    /// Adds the next bytes of the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        let bytes = self.complete_block(bytes);
        let (blocks, rest) = bytes.as_chunks();
        compress256(&mut self.state, blocks);
        self.keep(blocks, rest);
    }

    /// Adds the next bytes of `self` and of `other`, as [`update`](Self::update) does for one stream,
    /// but with both computations in step.
    pub fn update_both(&mut self, bytes: &[u8], other: &mut Self, other_bytes: &[u8]) {
        let (bytes, other_bytes) = (
            self.complete_block(bytes),
            other.complete_block(other_bytes),
        );
        let (blocks, rest) = bytes.as_chunks();
        let (other_blocks, other_rest) = other_bytes.as_chunks();
        let (paired, single) = blocks.split_at(blocks.len().min(other_blocks.len()));
        let (other_paired, other_single) = other_blocks.split_at(paired.len());
        compress_both([&mut self.state, &mut other.state], [paired, other_paired]);
        compress256(&mut self.state, single);
        compress256(&mut other.state, other_single);
        self.keep(blocks, rest);
        other.keep(other_blocks, other_rest);
    }

    /// The hash of all bytes.
    #[must_use]
    pub fn finish(mut self) -> [u8; 32] {
        let bits = self.length.wrapping_mul(8).to_be_bytes();
        let until_length = BLOCK_BYTES - LENGTH_BYTES - 1;
        let zeros = (until_length + BLOCK_BYTES - self.filled()) % BLOCK_BYTES;
        let mut padding = [0; BLOCK_BYTES + LENGTH_BYTES];
        padding[0] = 0x80;
        padding[1 + zeros..][..LENGTH_BYTES].copy_from_slice(&bits);
        self.update(&padding[..1 + zeros + LENGTH_BYTES]);
        let mut digest = [0; 32];

        for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(self.state) {
            *bytes = word.to_be_bytes();
        }

        digest
    }

    fn filled(&self) -> usize {
        usize::try_from(self.length % BLOCK_BYTES as u64).expect("less than a block")
    }

    /// Completes a begun block as far as `bytes` suffice, and returns the rest of them.
    fn complete_block<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let filled = self.filled();
        if filled == 0 {
            return bytes;
        }

        let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - filled));
        self.pending[filled..][..now.len()].copy_from_slice(now);
        self.length += now.len() as u64;

        if self.filled() == 0 {
            compress256(&mut self.state, &[self.pending]);
        }
        later
    }

    /// Accounts for `blocks`, which have been compressed, and keeps `rest`, which begins the next one.
    fn keep(&mut self, blocks: &[[u8; BLOCK_BYTES]], rest: &[u8]) {
        self.length += blocks.as_flattened().len() as u64;
        let filled = self.filled();
        self.pending[filled..][..rest.len()].copy_from_slice(rest);
        self.length += rest.len() as u64;
    }
}

/// Compresses each of `blocks` into its state; both have the same number of blocks.
fn compress_both(states: [&mut [u32; 8]; 2], blocks: [&[[u8; BLOCK_BYTES]]; 2]) {
    #[cfg(target_arch = "x86_64")]
    if in_step::is_available() {
        return in_step::compress_both(states, blocks);
    }
    for (state, blocks) in states.into_iter().zip(blocks) {
        compress256(state, blocks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::Digest as _;

    fn expected(bytes: &[u8]) -> [u8; 32] {
        sha2::Sha256::digest(bytes).into()
    }

    #[test]
    fn every_length_around_a_block_is_padded_right() {
        let bytes: Vec<u8> = (0..200).collect();
        for length in 0..bytes.len() {
            let mut hash = Sha256::new();
            hash.update(&bytes[..length]);
            assert_eq!(hash.finish(), expected(&bytes[..length]), "{length} bytes");
        }
    }

    proptest! {
        /// Whatever is fed in whichever portions, alone or in step: the digests are those of the
        /// streams.
        #[test]
        fn two_streams_in_step_are_what_each_is_alone(
            portions in proptest::collection::vec(
                (0usize..700, 0usize..700, any::<bool>()), 0..20),
            seed: u8,
        ) {
            let (mut one, mut other) = (Sha256::new(), Sha256::new());
            let (mut one_bytes, mut other_bytes) = (Vec::new(), Vec::new());
            let make = |length: usize, from: usize| -> Vec<u8> {
                (from..from + length).map(|at| (at * 31 / 7).to_le_bytes()[0] ^ seed).collect()
            };
            for (length, other_length, is_in_step) in portions {
                let now = make(length, one_bytes.len());
                let other_now = make(other_length, 2 * other_bytes.len() + 5);
                if is_in_step {
                    one.update_both(&now, &mut other, &other_now);
                } else {
                    one.update(&now);
                    other.update(&other_now);
                }
                one_bytes.extend(now);
                other_bytes.extend(other_now);
            }
            prop_assert_eq!(one.finish(), expected(&one_bytes));
            prop_assert_eq!(other.finish(), expected(&other_bytes));
        }
    }
}
