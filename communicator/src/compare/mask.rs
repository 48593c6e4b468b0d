//! What of two images of a page may differ although both are right, as PostgreSQL's own consistency check of WAL has it.
//!
//! Masked are: LSN, checksum, the space between pd_lower and pd_upper, hints (of pages, of tuples, of line pointers), and
//! fields that are not logged. What kind of page it is, its special space says; what is not known is masked as any page.

use crate::service::PAGE_SIZE;

/// Bytes of a page's header; line pointers follow.
const HEADER: usize = 24;
/// Forks: free space map, visibility map.
const FSM: u8 = 1;
const VM: u8 = 2;

/// Page flags that are hints: has free lines, is full, all visible.
const PAGE_HINTS: u16 = 0x0007;

/// Tuple flags: everything that tells of transactions; of a frozen tuple only what tells of its deleter is a hint.
const HEAP_TRANSACTION: u16 = 0xFFF0;
const HEAP_XMIN_FROZEN: u16 = 0x0300;
const HEAP_XMAX_HINTS: u16 = 0x0C00;
/// Bytes of a heap tuple's header.
const HEAP_HEADER: usize = 23;

/// What the special space says that a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Heap,
    Btree { leaf: bool },
    Hash { items: bool },
    Gist { leaf: bool },
    Other,
}

/// A page being masked. Fields are little-endian, as PostgreSQL writes them on all cpus that are served here.
struct Masked {
    bytes: Vec<u8>,
}

impl Masked {
    fn u16(&self, at: usize) -> u16 {
        match self.bytes.get(at..at + 2) {
            Some(&[a, b]) => u16::from_le_bytes([a, b]),
            _ => 0,
        }
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at + 2)) << 16
    }

    fn fill(&mut self, range: std::ops::Range<usize>) {
        if let Some(bytes) = self.bytes.get_mut(range) {
            bytes.fill(0);
        }
    }

    fn clear(&mut self, at: usize, bits: u16) {
        let v = self.u16(at) & !bits;
        if let Some(bytes) = self.bytes.get_mut(at..at + 2) {
            bytes.copy_from_slice(&v.to_le_bytes());
        }
    }

    fn lower(&self) -> usize {
        self.u16(12).into()
    }

    fn upper(&self) -> usize {
        self.u16(14).into()
    }

    fn special(&self) -> usize {
        self.u16(16).into()
    }

    /// Whether the header is one: else the page is compared as bytes.
    fn is_page(&self) -> bool {
        let (lower, upper, special) = (self.lower(), self.upper(), self.special());
        let size = usize::from(self.u16(18) & 0xFF00);
        size == PAGE_SIZE && HEADER <= lower && lower <= upper && upper <= special && special <= PAGE_SIZE
    }

    fn kind(&self) -> Kind {
        let special = self.special();
        match PAGE_SIZE - special {
            0 => Kind::Heap,
            16 => match self.u16(PAGE_SIZE - 2) {
                // Bucket and overflow pages have items.
                0xFF80 => Kind::Hash { items: self.u16(special + 12) & 0x3 != 0 },
                0xFF81 => Kind::Gist { leaf: self.u16(special + 12) & 1 != 0 },
                // The rest are vacuum cycle numbers of b-trees.
                0..=0xFF7F => Kind::Btree { leaf: self.u16(special + 12) & 1 != 0 },
                _ => Kind::Other,
            },
            _ => Kind::Other,
        }
    }

    /// Line pointers: (where it lies, offset, flags, length of what it names).
    fn lines(&self) -> Vec<(usize, usize, u32, usize)> {
        let all = (HEADER..self.lower()).step_by(4).filter(|at| at + 4 <= self.lower());
        let line = |at| {
            let v = self.u32(at);
            (at, (v & 0x7FFF) as usize, v >> 15 & 3, (v >> 17) as usize)
        };
        all.map(line).collect()
    }

    /// Dead is a hint.
    fn mask_line_flags(&mut self) {
        for (at, _, flags, _) in self.lines() {
            if flags != 0 {
                // Bits 15 and 16.
                self.clear(at, 0x8000);
                self.clear(at + 2, 0x0001);
            }
        }
    }

    fn mask_heap(&mut self) {
        for (_, offset, flags, len) in self.lines() {
            let end = offset + len;
            if len == 0 || offset < HEADER || end > PAGE_SIZE {
                continue;
            }
            // Normal: a tuple.
            if flags == 1 && len >= HEAP_HEADER {
                let infomask = self.u16(offset + 20);
                let frozen = infomask & HEAP_XMIN_FROZEN == HEAP_XMIN_FROZEN;
                self.clear(offset + 20, if frozen { HEAP_XMAX_HINTS } else { HEAP_TRANSACTION });
                // The command number: nobody needs it after a crash.
                self.fill(offset + 8..offset + 12);
            }
            // Padding is whatever was in memory.
            self.fill(end..end.next_multiple_of(8).min(PAGE_SIZE));
        }
    }

    fn mask_kind(&mut self, kind: Kind) {
        let flags = self.special() + 12;
        match kind {
            Kind::Heap => self.mask_heap(),
            Kind::Btree { leaf } => {
                if leaf {
                    self.mask_line_flags();
                }
                // Has garbage; the cycle of a vacuum.
                self.clear(flags, 0x40);
                self.fill(PAGE_SIZE - 2..PAGE_SIZE);
            }
            Kind::Hash { items } => {
                if items {
                    self.mask_line_flags();
                }
                // Has dead tuples.
                self.clear(flags, 0x80);
            }
            Kind::Gist { leaf } => {
                if leaf {
                    self.mask_line_flags();
                }
                // Its node sequence number; follow-right and has-garbage.
                self.fill(self.special()..self.special() + 8);
                self.clear(flags, 0x18);
            }
            Kind::Other => {}
        }
    }
}

/// Whether pages of this fork are logged so that two copies can be compared: the free space map is not.
pub(super) fn is_logged(fork: u8) -> bool {
    fork != FSM
}

fn masked(page: &[u8], fork: u8) -> Vec<u8> {
    let mut m = Masked { bytes: page.to_vec() };
    let is_page = m.is_page();
    // LSN and checksum.
    m.fill(0..10);
    if is_page {
        m.clear(10, PAGE_HINTS);
        // The oldest transaction worth a pruning.
        m.fill(20..24);
        if fork != VM {
            let (lower, upper, kind) = (m.lower(), m.upper(), m.kind());
            m.mask_kind(kind);
            m.fill(lower..upper);
        }
    }
    m.bytes
}

/// The first offset at which two images of a page of this fork differ beyond what may.
pub(super) fn first_difference(a: &[u8], b: &[u8], fork: u8) -> Option<usize> {
    if a == b {
        return None;
    }
    let (a, b) = (masked(a, fork), masked(b, fork));
    if a.len() != b.len() {
        return Some(a.len().min(b.len()));
    }
    a.iter().zip(&b).position(|(a, b)| a != b)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page with two tuples of 40 bytes, or items of an index, and this much special space.
    fn page(special: usize) -> Vec<u8> {
        let mut p = vec![0u8; PAGE_SIZE];
        let special_at = PAGE_SIZE - special;
        let items = [special_at - 40, special_at - 80];
        let put = |p: &mut Vec<u8>, at: usize, v: u16| p[at..at + 2].copy_from_slice(&v.to_le_bytes());
        put(&mut p, 12, (HEADER + 8) as u16);
        put(&mut p, 14, items[1] as u16);
        put(&mut p, 16, special_at as u16);
        put(&mut p, 18, PAGE_SIZE as u16 | 4);
        for (i, at) in items.iter().enumerate() {
            let line = *at as u32 | 1 << 15 | 37 << 17;
            p[HEADER + 4 * i..HEADER + 4 * i + 4].copy_from_slice(&line.to_le_bytes());
            p[*at..at + 37].fill(0x11);
        }
        p
    }

    fn with(p: &[u8], at: usize, xor: u8) -> Vec<u8> {
        let mut p = p.to_vec();
        p[at] ^= xor;
        p
    }

    #[test]
    fn hints_and_unused_space_of_a_heap_page_may_differ_and_nothing_else() {
        let p = page(0);
        let tuple = PAGE_SIZE - 40;
        let may =
            [0, 7, 8, 9, 20, 23, 100, 4000, tuple - 41, tuple + 8, tuple + 11, tuple + 21, tuple + 37, tuple + 39];
        for at in may {
            assert_eq!(first_difference(&p, &with(&p, at, 0xFF), 0), None, "{at}");
        }
        assert_eq!(first_difference(&p, &with(&p, 10, 0x07), 0), None);
        for at in [12, 16, 18, HEADER, HEADER + 7, tuple, tuple + 7, tuple + 12, tuple + 18, tuple + 23, tuple + 36] {
            assert!(first_difference(&p, &with(&p, at, 0x10), 0).is_some(), "{at}");
        }
        assert_eq!(first_difference(&p, &with(&p, tuple + 30, 1), 0), Some(tuple + 30));
        // Low bits of the infomask tell of the tuple's shape.
        assert_eq!(first_difference(&p, &with(&p, tuple + 20, 0x01), 0), Some(tuple + 20));
    }

    #[test]
    fn a_frozen_tuple_does_not_lose_that() {
        let tuple = PAGE_SIZE - 40;
        let mut p = page(0);
        p[tuple + 21] = 0x03;
        assert_eq!(first_difference(&p, &with(&p, tuple + 21, 0x0C), 0), None, "hints of the deleter");
        assert!(first_difference(&p, &with(&p, tuple + 21, 0x01), 0).is_some(), "frozen, or not");
    }

    #[test]
    fn b_tree_leaves_may_differ_in_dead_items_and_vacuum_cycles() {
        let mut leaf = page(16);
        let flags = PAGE_SIZE - 4;
        leaf[flags] = 1;
        for (at, xor) in [(flags, 0x40), (PAGE_SIZE - 2, 0x33), (HEADER + 1, 0x80), (HEADER + 2, 0x01)] {
            assert_eq!(first_difference(&leaf, &with(&leaf, at, xor), 0), None, "{at}");
        }
        let item = PAGE_SIZE - 16 - 40;
        for (at, xor) in [(flags, 0x04), (PAGE_SIZE - 16, 1), (item, 1), (item + 20, 0x80)] {
            assert!(first_difference(&leaf, &with(&leaf, at, xor), 0).is_some(), "{at}");
        }
        let inner = with(&leaf, flags, 1);
        assert!(first_difference(&inner, &with(&inner, HEADER + 1, 0x80), 0).is_some(), "only leaves have hints");
    }

    #[test]
    fn hash_and_gist_pages_have_hints_of_their_own() {
        let flags = PAGE_SIZE - 4;
        let mut hash = page(16);
        hash[PAGE_SIZE - 2..].copy_from_slice(&0xFF80u16.to_le_bytes());
        hash[flags] = 2;
        assert_eq!(first_difference(&hash, &with(&hash, flags, 0x80), 0), None);
        assert_eq!(first_difference(&hash, &with(&hash, HEADER + 1, 0x80), 0), None);
        assert!(first_difference(&hash, &with(&hash, flags, 0x40), 0).is_some());
        let mut gist = page(16);
        gist[PAGE_SIZE - 2..].copy_from_slice(&0xFF81u16.to_le_bytes());
        gist[flags] = 1;
        for (at, xor) in [(PAGE_SIZE - 16, 0xFF), (flags, 0x18), (HEADER + 1, 0x80)] {
            assert_eq!(first_difference(&gist, &with(&gist, at, xor), 0), None, "{at}");
        }
        assert!(first_difference(&gist, &with(&gist, PAGE_SIZE - 8, 1), 0).is_some(), "its right neighbour");
    }

    #[test]
    fn a_visibility_map_is_compared_to_its_last_bit() {
        let mut vm = vec![0u8; PAGE_SIZE];
        vm[12..14].copy_from_slice(&24u16.to_le_bytes());
        vm[14..16].copy_from_slice(&8192u16.to_le_bytes());
        vm[16..18].copy_from_slice(&8192u16.to_le_bytes());
        vm[18..20].copy_from_slice(&(8192u16 | 4).to_le_bytes());
        assert_eq!(first_difference(&vm, &with(&vm, 5000, 1), VM), Some(5000));
        assert_eq!(first_difference(&vm, &with(&vm, 3, 1), VM), None);
        assert!(!is_logged(FSM) && is_logged(VM) && is_logged(0));
    }

    #[test]
    fn what_is_no_page_is_compared_as_bytes_and_hurts_nobody() {
        let p = page(0);
        let zero = vec![0; PAGE_SIZE];
        assert!(first_difference(&p, &zero, 0).is_some());
        let mut x = 1u64;
        for _ in 0..2000 {
            // Nonsense of every kind in the header and in line pointers.
            let mut bad = p.clone();
            for _ in 0..6 {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                let at = if x & 1 == 0 { 10 + (x >> 8) as usize % 22 } else { (x >> 8) as usize % PAGE_SIZE };
                bad[at] = (x >> 40) as u8;
            }
            let _ = first_difference(&p, &bad, 0);
            assert_eq!(first_difference(&bad, &bad.clone(), 0), None);
        }
        assert_eq!(first_difference(&p, &p[..100], 0), Some(100));
    }
}
