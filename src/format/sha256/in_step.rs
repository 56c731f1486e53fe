//! The compression of two SHA-256 streams at once, with the SHA extensions of x86-64.
//!
//! As Intel describes it for one stream (Gulley et al., "Intel SHA Extensions", 2013): the state
//! is in two registers, ABEF and CDGH, and each instruction does two rounds. Here every step is done
//! for both streams before the next one, so that neither waits for its own previous instruction.
//! Three streams would need more registers than there are.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
    _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8,
    _mm_shuffle_epi32,
};

const BLOCK_BYTES: usize = 64;

/// The fractional parts of the cube roots of the first 64 primes: FIPS 180-4, 4.2.2.
#[rustfmt::skip]
const ROUND_CONSTANTS: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5], [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3], [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc], [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7], [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13], [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3], [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5], [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208], [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

/// Whether the processor has the instructions.
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("sse4.1")
}

/// Compresses each of `blocks` into its state, as many of both as the shorter has.
///
/// # Panics
/// Where this is not [available](is_available).
#[expect(unsafe_code, reason = "instructions that not every processor has")]
pub(super) fn compress_both(states: [&mut [u32; 8]; 2], blocks: [&[[u8; BLOCK_BYTES]]; 2]) {
    assert!(is_available(), "the caller has checked `is_available`");
    // SAFETY: the processor has the features the function is compiled for, its only requirement.
    unsafe { compress(states, blocks) }
}

/// One register for each stream.
type Pair = [__m128i; 2];

#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn compress(states: [&mut [u32; 8]; 2], blocks: [&[[u8; BLOCK_BYTES]]; 2]) {
    let [one, other] = states;
    let ([one_abef, one_cdgh], [other_abef, other_cdgh]) = (to_registers(one), to_registers(other));
    let (mut abef, mut cdgh): (Pair, Pair) = ([one_abef, other_abef], [one_cdgh, other_cdgh]);

    for (one_block, other_block) in blocks[0].iter().zip(blocks[1]) {
        let before = (abef, cdgh);
        // No closures handed to the library in here: what calls them is compiled for any
        // processor, so that they cannot be inlined into it.
        let mut words = [
            [load(one_block, 0), load(other_block, 0)],
            [load(one_block, 1), load(other_block, 1)],
            [load(one_block, 2), load(other_block, 2)],
            [load(one_block, 3), load(other_block, 3)],
        ];
        let (first, later) = ROUND_CONSTANTS.split_at(4);

        for (words, constants) in words.iter().zip(first) {
            four_rounds(&mut abef, &mut cdgh, *words, *constants);
        }

        for constants in later.as_chunks::<4>().0 {
            // Written out, since the compiler does not unroll it, and the registers need names.
            next_words(&mut words, [0, 1, 2, 3]);
            four_rounds(&mut abef, &mut cdgh, words[0], constants[0]);
            next_words(&mut words, [1, 2, 3, 0]);
            four_rounds(&mut abef, &mut cdgh, words[1], constants[1]);
            next_words(&mut words, [2, 3, 0, 1]);
            four_rounds(&mut abef, &mut cdgh, words[2], constants[2]);
            next_words(&mut words, [3, 0, 1, 2]);
            four_rounds(&mut abef, &mut cdgh, words[3], constants[3]);
        }

        for stream in 0..2 {
            abef[stream] = _mm_add_epi32(abef[stream], before.0[stream]);
            cdgh[stream] = _mm_add_epi32(cdgh[stream], before.1[stream]);
        }
    }

    *one = from_registers(abef[0], cdgh[0]);
    *other = from_registers(abef[1], cdgh[1]);
}

#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
#[inline]
fn four_rounds(abef: &mut Pair, cdgh: &mut Pair, words: Pair, constants: [u32; 4]) {
    let constants = from_words(constants);
    let sums = [
        _mm_add_epi32(words[0], constants),
        _mm_add_epi32(words[1], constants),
    ];
    for stream in 0..2 {
        cdgh[stream] = _mm_sha256rnds2_epu32(cdgh[stream], abef[stream], sums[stream]);
    }

    for stream in 0..2 {
        let upper = _mm_shuffle_epi32::<0x0e>(sums[stream]);
        abef[stream] = _mm_sha256rnds2_epu32(abef[stream], cdgh[stream], upper);
    }
}

/// Replaces the oldest four words of the message schedule, which is named first, by the next four.
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
#[inline]
fn next_words(words: &mut [Pair; 4], [a, b, c, d]: [usize; 4]) {
    let (oldest, a, b, c, d) = (a, words[a], words[b], words[c], words[d]);
    words[oldest] = [
        schedule(a[0], b[0], c[0], d[0]),
        schedule(a[1], b[1], c[1], d[1]),
    ];
}

#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
#[inline]
fn schedule(a: __m128i, b: __m128i, c: __m128i, d: __m128i) -> __m128i {
    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(a, b), _mm_alignr_epi8::<4>(d, c));
    _mm_sha256msg2_epu32(sum, d)
}

/// Words 4 × `at` and the three behind it; they are big-endian.
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
#[inline]
fn load(block: &[u8; BLOCK_BYTES], at: usize) -> __m128i {
    let (halves, _) = block.as_chunks::<8>();
    let bytes = _mm_set_epi64x(
        i64::from_le_bytes(halves[2 * at + 1]),
        i64::from_le_bytes(halves[2 * at]),
    );
    _mm_shuffle_epi8(
        bytes,
        _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203),
    )
}

#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
#[inline]
fn from_words(words: [u32; 4]) -> __m128i {
    let [a, b, c, d] = words.map(u32::cast_signed);
    _mm_set_epi32(d, c, b, a)
}

/// ABEF and CDGH.
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
#[inline]
fn to_registers(state: &[u32; 8]) -> [__m128i; 2] {
    let [a, b, c, d, e, f, g, h] = *state;
    [from_words([f, e, b, a]), from_words([h, g, d, c])]
}

#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
#[inline]
fn from_registers(abef: __m128i, cdgh: __m128i) -> [u32; 8] {
    [
        _mm_extract_epi32::<3>(abef),
        _mm_extract_epi32::<2>(abef),
        _mm_extract_epi32::<3>(cdgh),
        _mm_extract_epi32::<2>(cdgh),
        _mm_extract_epi32::<1>(abef),
        _mm_extract_epi32::<0>(abef),
        _mm_extract_epi32::<1>(cdgh),
        _mm_extract_epi32::<0>(cdgh),
    ]
    .map(i32::cast_unsigned)
}
