//! When a read may take the answer of an earlier read of the same key (R11, S6).

use crate::request::Lsn;

/// The earlier read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Old {
    /// Its not_modified_since.
    pub n: Lsn,
    /// As of when its answer is valid, for all that the client knows: n, or on a replica the request LSN it was sent with.
    pub eff: Lsn,
    /// The server process that it was or will be sent to is proved to have n.
    pub ready: bool,
    /// A mutation of the key completed since it was sent.
    pub mutated: bool,
}

/// Whether a read with not_modified_since `n` may wait for `old` in place of being sent. The first condition makes the
/// answer new enough; the second keeps the reader from waiting for WAL that it does not need (I12); the third, from an
/// answer that is from before a change without an LSN (R2).
#[must_use]
#[inline]
pub const fn may_join(n: Lsn, old: Old) -> bool {
    n <= old.eff && (old.ready || old.n <= n) && !old.mutated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_r11() {
        let old = |n, ready| Old { n, eff: n, ready, mutated: false };
        assert!(may_join(100, old(1000, true)), "an answer that is newer, and needs no WAL");
        assert!(!may_join(100, old(1000, false)), "would wait for WAL 1000");
        assert!(may_join(1000, old(1000, false)), "waits for what it needs itself");
        assert!(!may_join(1001, old(1000, true)), "the answer may be too old");
        assert!(!may_join(100, Old { mutated: true, ..old(1000, true) }));
        assert!(may_join(1500, Old { eff: 2000, ..old(1000, false) }), "a replica's answer is as of its request LSN");
    }
}
