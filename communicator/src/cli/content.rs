//! Self-describing pages: relation, block and version stand in the page, and every other byte follows from them.

use crate::service::PAGE_SIZE;

const MAGIC: u64 = u64::from_le_bytes(*b"shmrdemo");
const HEADER: usize = 32;

/// Fills a page for this relation, block and version (not 0).
pub(super) fn fill(page: &mut [u8], rel: u32, block: u32, version: u64) {
    let fields = [version, MAGIC, u64::from(rel) << 32 | u64::from(block), version];
    for (place, field) in page.chunks_exact_mut(8).zip(fields) {
        place.copy_from_slice(&field.to_le_bytes());
    }
    let mut state = seed(rel, block, version);
    for place in page.chunks_exact_mut(8).skip(HEADER / 8) {
        place.copy_from_slice(&next(&mut state).to_le_bytes());
    }
}

/// The page as a value.
pub(super) fn page(rel: u32, block: u32, version: u64) -> Vec<u8> {
    let mut page = vec![0; PAGE_SIZE];
    fill(&mut page, rel, block, version);
    page
}

/// Checks every byte, and gives the version: 0 for a page of zeros.
pub(super) fn verify(page: &[u8], rel: u32, block: u32) -> Result<u64, String> {
    let word = |i: usize| page.get(i * 8..i * 8 + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap_or([0; 8])));
    if page.len() != PAGE_SIZE {
        return Err(format!("a page of {} bytes", page.len()));
    }
    if word(1) == 0 && page.iter().all(|b| *b == 0) {
        return Ok(0);
    }
    let key = u64::from(rel) << 32 | u64::from(block);
    if word(1) != MAGIC || word(2) != key || word(0) != word(3) {
        return Err(format!("relation {rel} block {block}: the page says magic {:x}, key {:x}", word(1), word(2)));
    }
    let version = word(3);
    let mut state = seed(rel, block, version);
    for i in HEADER / 8..PAGE_SIZE / 8 {
        if word(i) != next(&mut state) {
            return Err(format!("relation {rel} block {block} version {version}: byte {} differs", i * 8));
        }
    }
    Ok(version)
}

fn seed(rel: u32, block: u32, version: u64) -> u64 {
    let mixed = (u64::from(rel) << 32 | u64::from(block)) ^ version.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed | 1
}

/// xorshift64: fast, and never 0 for a state that is not.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_verifies_and_any_flipped_byte_does_not() {
        let good = page(7, 9, 3);
        assert_eq!(verify(&good, 7, 9), Ok(3));
        assert_eq!(verify(&vec![0; PAGE_SIZE], 7, 9), Ok(0));
        for at in [0, 8, 16, 24, 32, 4000, PAGE_SIZE - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(verify(&bad, 7, 9).is_err(), "byte {at}");
        }
        assert!(verify(&good, 7, 8).is_err() && verify(&good, 8, 9).is_err());
    }
}
