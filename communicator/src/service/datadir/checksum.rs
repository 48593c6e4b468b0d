//! Checksums of PostgreSQL's data pages.
//!
//! 32 FNV-1a-like sums run side by side over the 32-bit words of the page, with a shift mixed in so that high bits reach
//! low ones; two rounds of zeroes follow, the sums are folded by xor, and so is the block number. The checksum's own field
//! counts as zero. The result is in 1..=65535, so 0 means that a page has none.

use shmuring::request::RelTag;

use crate::service::error::Rel;
use crate::service::{ServiceError, PAGE_SIZE};

const SUMS: usize = 32;
const PRIME: u32 = 16_777_619;
/// Start values of the sums; part of the format.
const BASES: [u32; SUMS] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];
/// Offset of pd_checksum.
const FIELD: usize = 8;
/// Offset of pd_upper; 0 there makes a page new.
const UPPER: usize = 14;

/// A page that does not match its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Its block.
    pub block: u32,
    /// What the page says.
    pub stored: u16,
    /// What it comes to.
    pub computed: u16,
}

impl Mismatch {
    /// The error of a page service: EBADMSG.
    #[must_use]
    pub fn of(self, rel: RelTag) -> ServiceError {
        let Self { block, stored, computed } = self;
        let what = format!("block {block} of relation {}: checksum {computed:04X}, page says {stored:04X}", Rel(rel));
        ServiceError::new(libc::EBADMSG, what).at_block(block)
    }
}

/// The little-endian u16 at `at`; 0 past the end.
fn le16(page: &[u8], at: usize) -> u16 {
    page.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}

fn mix(sum: u32, word: u32) -> u32 {
    let t = sum ^ word;
    t.wrapping_mul(PRIME) ^ (t >> 17)
}

/// The checksum of `page` as block `block` of its fork. `page` must be whole.
#[must_use]
pub fn compute(page: &[u8], block: u32) -> u16 {
    let mut sums = BASES;
    for (row, words) in page.chunks_exact(4 * SUMS).enumerate() {
        for (i, (sum, w)) in sums.iter_mut().zip(words.chunks_exact(4)).enumerate() {
            let mut word = w.try_into().map_or(0, u32::from_le_bytes);
            // pd_checksum is the low half of the word at 8.
            if row == 0 && i == FIELD / 4 {
                word &= 0xFFFF_0000;
            }
            *sum = mix(*sum, word);
        }
    }
    let folded = sums.iter().fold(0, |acc, s| acc ^ mix(mix(*s, 0), 0));
    // At most 65534 + 1.
    ((folded ^ block) % 65_535 + 1) as u16
}

/// Checks a page. A new page (all zero) has no checksum and is right.
///
/// # Errors
/// What the page says and what it comes to.
pub fn verify(page: &[u8], block: u32) -> Result<(), Mismatch> {
    let stored = le16(page, FIELD);
    if le16(page, UPPER) == 0 && page.len() == PAGE_SIZE && page.iter().all(|b| *b == 0) {
        return Ok(());
    }
    let computed = compute(page, block);
    if page.len() == PAGE_SIZE && stored == computed {
        Ok(())
    } else {
        Err(Mismatch { block, stored, computed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Vec<u8> {
        (0..PAGE_SIZE).map(|i| (i * 7 + i / 256) as u8).collect()
    }

    #[test]
    fn every_changed_byte_but_those_of_the_checksum_changes_it() {
        let good = page();
        let sum = compute(&good, 5);
        for i in 0..PAGE_SIZE {
            let mut bad = good.clone();
            bad[i] ^= 0x40;
            assert_eq!(compute(&bad, 5) == sum, i / 2 == FIELD / 2, "byte {i}");
        }
        assert_ne!(compute(&good, 6), sum);
    }

    #[test]
    fn a_page_is_right_with_its_checksum_and_when_it_is_new() {
        let mut p = page();
        assert!(verify(&p, 5).is_err());
        let sum = compute(&p, 5);
        p[8..10].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(verify(&p, 5), Ok(()));
        assert_eq!(verify(&p, 6).map_err(|m| m.stored), Err(sum));
        assert_eq!(verify(&[0; PAGE_SIZE], 9), Ok(()));
        let mut almost = [0; PAGE_SIZE];
        almost[PAGE_SIZE - 1] = 1;
        assert!(verify(&almost, 9).is_err() && verify(&[], 0).is_err());
    }
}
