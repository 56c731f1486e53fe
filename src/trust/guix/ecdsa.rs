//! ECDSA on the Ed25519 curve, which is what libgcrypt computes for Guix. It is not EdDSA.
//!
//! With n the order of the base point G, a signature (r, s) of a hash by the key Q is valid if
//! x([z/s]G + [r/s]Q) mod n = r. Here z is the hash as a big-endian number without its
//! three lowest bits (n has 253), and x the affine coordinate on the *Edwards* curve, so up to 16
//! times n. The three bits that z lacks are why callers must compare the whole hash first.
//!
//! The curve library does not expose x, only y. Adding the point T = (t, 0) of order four,
//! where t² = -1, maps (x, y) to (ty, tx): so x is y(P + T) / t. The one product of field
//! elements that this takes is computed here.
//!
//! A run verifies thousands of signatures by few keys. So inversions, a third of the work, are done
//! for many signatures at once, and a key that is used often gets a table of its multiples. The
//! benchmark `guix_narinfos_parse_and_authorize_together` has both and takes 33 µs for a narinfo,
//! `guix_narinfo_parse_and_authorize` neither and 76 µs.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::EdwardsBasepointTable;
use curve25519_dalek::traits::BasepointTable as _;
use curve25519_dalek::{EdwardsPoint, Scalar};

/// The point Q of a public key.
#[derive(Debug)]
pub(super) struct KeyPoint {
    point: EdwardsPoint,
    /// How many multiplications were done without a table.
    multiplied: AtomicUsize,
    multiples: OnceLock<EdwardsBasepointTable>,
}

/// The number of multiplications after which a table has saved the time that making it takes.
const TABLE_PAYS_AFTER: usize = 100;

impl KeyPoint {
    pub(super) fn new(point: EdwardsPoint) -> Self {
        Self {
            point,
            multiplied: AtomicUsize::new(0),
            multiples: OnceLock::new(),
        }
    }

    /// \[a\]G + \[b\]Q.
    fn combine(&self, a: &Scalar, b: &Scalar) -> EdwardsPoint {
        if let Some(multiples) = self.multiples.get() {
            return EdwardsPoint::mul_base(a) + multiples * b;
        }

        // Only one thread makes the table; meanwhile the others continue without it.
        if self.multiplied.fetch_add(1, Ordering::Relaxed) == TABLE_PAYS_AFTER {
            self.multiples
                .get_or_init(|| EdwardsBasepointTable::create(&self.point));
        }
        EdwardsPoint::vartime_double_scalar_mul_basepoint(b, &self.point, a)
    }
}

/// The equation that holds for a valid signature.
#[derive(Debug)]
pub(super) struct Equation<'k> {
    q: &'k KeyPoint,
    z: Scalar,
    /// Neither is zero.
    r: Scalar,
    s: Scalar,
}

impl<'k> Equation<'k> {
    /// The equation of the signature (r, s), big-endian numbers of any length, of `hash` by the key
    /// `q`; `None` if a number is out of range, so that the signature is invalid.
    pub(super) fn new(q: &'k KeyPoint, hash: &[u8; 32], r: &[u8], s: &[u8]) -> Option<Self> {
        let (r, s) = (nonzero_scalar(r)?, nonzero_scalar(s)?);
        Some(Self {
            q,
            z: hash_to_scalar(hash),
            r,
            s,
        })
    }
}

/// Which of `equations` hold, in their order.
pub(super) fn which_hold(equations: &[Equation<'_>]) -> Vec<bool> {
    // No `s` is zero: one zero would make all inverses wrong.
    let mut inverses: Vec<Scalar> = equations.iter().map(|equation| equation.s).collect();
    Scalar::invert_batch_alloc(&mut inverses);
    let points: Vec<EdwardsPoint> = equations
        .iter()
        .zip(inverses)
        .map(|(Equation { q, z, r, .. }, w)| q.combine(&(z * w), &(r * w)))
        .collect();
    let xs = xs_mod_n(&points);

    equations
        .iter()
        .zip(xs)
        .map(|(equation, x)| x == equation.r)
        .collect()
}

/// The number z of `hash` in the equation.
pub(super) fn hash_to_scalar(hash: &[u8; 32]) -> Scalar {
    Scalar::from_bytes_mod_order(shift_right_3(hash))
}

/// The 32 big-endian bytes, shifted right by three bits, little-endian.
pub(super) fn shift_right_3(bytes: &[u8; 32]) -> [u8; 32] {
    let mut shifted = [0; 32];
    let mut above = 0;
    for (to, &byte) in shifted.iter_mut().rev().zip(bytes) {
        *to = above << 5 | byte >> 3;
        above = byte;
    }

    shifted
}

/// x of each of `points`, a number below p, reduced modulo n.
pub(super) fn xs_mod_n(points: &[EdwardsPoint]) -> impl Iterator<Item = Scalar> {
    xs(points).map(Scalar::from_bytes_mod_order)
}

fn xs(points: &[EdwardsPoint]) -> impl Iterator<Item = [u8; 32]> {
    let moved: Vec<_> = points
        .iter()
        .map(|point| point + EIGHT_TORSION[2])
        .collect();
    EdwardsPoint::compress_batch_alloc(&moved)
        .into_iter()
        .map(|compressed| {
            let mut tx = compressed.to_bytes();
            // The highest bit is the sign of the other coordinate.
            tx[31] &= 0x7f;
            multiply_mod_p(&tx, &ONE_OVER_T)
        })
}

/// The number between 1 and n-1 that the big-endian `bytes` spell; libgcrypt drops leading zeros
/// or adds one.
fn nonzero_scalar(bytes: &[u8]) -> Option<Scalar> {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    let digits = &bytes[zeros..];
    let mut little_endian = [0; 32];
    let used = little_endian
        .get_mut(..digits.len())
        .filter(|used| !used.is_empty())?;
    used.copy_from_slice(digits);
    used.reverse();

    Scalar::from_canonical_bytes(little_endian).into()
}

/// 1/t for the t of `EIGHT_TORSION[2]`, little-endian.
const ONE_OVER_T: [u8; 32] = [
    0xb0, 0xa0, 0x0e, 0x4a, 0x27, 0x1b, 0xee, 0xc4, 0x78, 0xe4, 0x2f, 0xad, 0x06, 0x18, 0x43, 0x2f,
    0xa7, 0xd7, 0xfb, 0x3d, 0x99, 0x00, 0x4d, 0x2b, 0x0b, 0xdf, 0xc1, 0x4f, 0x80, 0x24, 0x83, 0x2b,
];

/// a times b modulo p = 2^255 - 19, all little-endian; the result is below p.
fn multiply_mod_p(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    let product = multiply(limbs(a), limbs(b));
    // 2^256 is 38 modulo p: the upper half counts 38 times.
    let mut sum = [0; 4];
    let mut carry = 0;

    for (limb, total) in sum.iter_mut().enumerate() {
        (*total, carry) = split(
            u128::from(product[limb]) + 38 * u128::from(product[limb + 4]) + u128::from(carry),
        );
    }

    // 2^255 is 19: what is left above, less than 80, counts 19 times. Now it is below 2p.
    let above = carry << 1 | sum[3] >> 63;
    sum[3] &= u64::MAX >> 1;
    add_small(&mut sum, above * 19);
    // Adding 19 overflows 255 bits exactly if p must be taken away, and takes it away then.
    let mut less_p = sum;
    add_small(&mut less_p, 19);

    if less_p[3] >> 63 == 1 {
        less_p[3] &= u64::MAX >> 1;
        sum = less_p;
    }
    let mut bytes = [0; 32];
    for (chunk, limb) in bytes.chunks_exact_mut(8).zip(sum) {
        chunk.copy_from_slice(&limb.to_le_bytes());
    }

    bytes
}

fn multiply(a: [u64; 4], b: [u64; 4]) -> [u64; 8] {
    let mut product = [0; 8];
    for (row, a) in a.into_iter().enumerate() {
        let mut carry = 0;
        for (column, b) in b.into_iter().enumerate() {
            let sum = u128::from(a) * u128::from(b)
                + u128::from(product[row + column])
                + u128::from(carry);
            (product[row + column], carry) = split(sum);
        }

        product[row + 4] = carry;
    }

    product
}

fn add_small(number: &mut [u64; 4], addend: u64) {
    let mut carry = addend;
    for limb in number {
        (*limb, carry) = split(u128::from(*limb) + u128::from(carry));
    }
}

/// The lower and the upper half.
#[expect(clippy::cast_possible_truncation, reason = "each half has 64 bits")]
fn split(wide: u128) -> (u64, u64) {
    (wide as u64, (wide >> 64) as u64)
}

fn limbs(bytes: &[u8; 32]) -> [u64; 4] {
    let (chunks, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|limb| u64::from_le_bytes(chunks[limb]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
    use curve25519_dalek::traits::Identity;
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    const P: [u8; 32] = {
        let mut p = [0xff; 32];
        (p[0], p[31]) = (0xed, 0x7f);
        p
    };

    fn number(small: u8) -> [u8; 32] {
        let mut number = [0; 32];
        number[0] = small;
        number
    }

    #[test]
    fn field_products_are_reduced() {
        let mut minus_one = P;
        minus_one[0] -= 1;
        assert_eq!(multiply_mod_p(&P, &number(1)), number(0));
        assert_eq!(multiply_mod_p(&minus_one, &minus_one), number(1));
        assert_eq!(multiply_mod_p(&minus_one, &number(1)), minus_one);
        assert_eq!(multiply_mod_p(&[0xff; 32], &number(1)), number(37));
        assert_eq!(
            multiply_mod_p(&[0xff; 32], &[0xff; 32]),
            multiply_mod_p(&number(37), &number(37))
        );
    }

    #[test]
    fn x_of_known_points() {
        let base = "1ad5258f602d56c9b2a7259560c72c695cdcd6fd31e2a4c0fe536ecdd3366921";
        let points = [ED25519_BASEPOINT_POINT, EdwardsPoint::identity()];
        let xs: Vec<_> = xs(&points).collect();
        assert_eq!(HEXLOWER.encode(&xs[0]), base);
        assert_eq!(xs[1], [0; 32]);
    }

    #[test]
    fn numbers_out_of_range_sign_nothing() {
        let order = "1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed";
        let order = HEXLOWER.decode(order.as_bytes()).unwrap();
        let mut last = order.clone();
        last[31] -= 1;
        for bytes in [&b""[..], &[0], &[0; 40], &order, &[0xff; 32], &[1; 33]] {
            assert!(nonzero_scalar(bytes).is_none(), "{bytes:?}");
        }
        for bytes in [&b"\x01"[..], &last, &[&[0; 9], &last[..]].concat()] {
            assert!(nonzero_scalar(bytes).is_some(), "{bytes:?}");
        }
    }

    #[test]
    fn a_table_changes_nothing_but_the_time() {
        let q = KeyPoint::new(EdwardsPoint::mul_base(&Scalar::from(77_777u32)));
        for number in 1..2 * TABLE_PAYS_AFTER as u64 {
            let (a, b) = (Scalar::from(number).invert(), -Scalar::from(number));
            let expected = EdwardsPoint::mul_base(&(a + b * Scalar::from(77_777u32)));
            assert_eq!(q.combine(&a, &b), expected, "{number}");
            assert_eq!(
                q.multiples.get().is_some(),
                number > TABLE_PAYS_AFTER as u64
            );
        }
    }

    proptest! {
        #[test]
        fn field_products_follow_the_laws(a: [u8; 32], b: [u8; 32], c: [u8; 32]) {
            let ab = multiply_mod_p(&a, &b);
            prop_assert_eq!(ab, multiply_mod_p(&b, &a));
            let left = multiply_mod_p(&ab, &c);
            prop_assert_eq!(left, multiply_mod_p(&a, &multiply_mod_p(&b, &c)));
        }
    }
}
