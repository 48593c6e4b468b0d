//! What a backend learns from the region alone, without a request: relation sizes, and when pages were last written.

use super::Backend;
use crate::lsn::rel_size::Size;
use crate::lsn::written::Written;
use crate::request::RelTag;
use crate::stats::OwnerCounter;

impl<'r> Backend<'r> {
    /// The size of a relation fork if the region knows it; `None`: ask with [`crate::request::Opcode::RelSize`]. It is
    /// that after every change that completed before the call. Never blocks.
    #[inline]
    pub fn cached_rel_size(&self, rel: RelTag) -> Option<Size> {
        if !self.home.is_home() {
            return None;
        }
        let size = self.parts.rel_sizes().get(rel, self.life);
        match size {
            Some(Size { is_changed, .. }) => {
                self.stats.add(OwnerCounter::RelSizeHits, 1);
                self.stats.add(OwnerCounter::RelSizeSpared, u64::from(is_changed));
            }
            None => {
                self.stats.add(OwnerCounter::RelSizeMisses, 1);
            }
        }
        size
    }

    /// The last-written table: note each page's LSN there before the write is submitted (R12). Works in a forked child
    /// too.
    #[inline]
    #[must_use]
    pub fn last_written(&self) -> Written<'r> {
        self.parts.last_written()
    }
}
