//! What two servers' answers about a block come to. Pure: no server is asked here.
//!
//! # Why a difference is one
//! Pages of a hot standby change while they are compared. Equal LSNs and equal digests are enough to say that a block
//! is the same; anything else is a doubt, and is looked at again between two looks at the primary: `before`, then the
//! standby once it has replayed all that the primary had written when `before` was read, then `after`. A page that is
//! the same before and after was so in between: the standby's page, of that time, must be it. A page that changed
//! meanwhile says nothing yet, with one exception: a standby that has replayed the LSN of a page has no older page.

use crate::service::standby::answer::{Entry, Status};

/// How two copies of a block differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The LSN is the same, and the bytes are not.
    Bytes,
    /// The standby's page is older than what it has replayed: a write was lost.
    Old,
    /// The standby's page is newer: the primary has lost a write.
    OldOnPrimary,
    /// The standby's page is all zero.
    Zeroed,
    /// The primary's page is all zero.
    ZeroedOnPrimary,
    /// The standby does not have the block, or the relation.
    Missing,
    /// The standby has a block past the primary's end.
    Extra,
    /// The standby's page is no page, or has a wrong checksum.
    Damaged,
    /// The primary's page is.
    DamagedOnPrimary,
}

impl Kind {
    /// Its name, in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Old => "old",
            Self::OldOnPrimary => "old_on_primary",
            Self::Zeroed => "zeroed",
            Self::ZeroedOnPrimary => "zeroed_on_primary",
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Damaged => "damaged",
            Self::DamagedOnPrimary => "damaged_on_primary",
        }
    }

    /// How often it must be seen in a row: where there is no LSN to tell that nothing changed in between, more often.
    pub(super) const fn looks(self) -> u32 {
        match self {
            Self::Extra | Self::Missing => 3,
            _ => 2,
        }
    }
}

/// What looking at a block came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The copies are the same.
    Same,
    /// Neither server has anything in it yet: all zero, or never logged.
    New,
    /// The primary does not have it any more.
    Gone,
    /// Nothing yet.
    Doubt,
    /// They differ.
    Differs(Kind),
}

fn is_read(e: &Entry) -> bool {
    e.status == Status::Read
}

/// A page with nothing in it.
fn is_zero(e: &Entry) -> bool {
    is_read(e) && e.digest == 0
}

/// Neither a page that was logged nor anything wrong.
fn is_blank(e: &Entry) -> bool {
    e.status == Status::PastEnd || e.status == Status::NoRelation || is_read(e) && (e.digest == 0 || e.lsn == 0)
}

fn is_absent(e: &Entry) -> bool {
    matches!(e.status, Status::PastEnd | Status::NoRelation)
}

/// A first look: only what needs no second.
pub(super) fn first(primary: &Entry, standby: &Entry) -> Verdict {
    if is_absent(primary) && is_blank(standby) {
        Verdict::Gone
    } else if is_blank(primary) && is_blank(standby) {
        Verdict::New
    } else if is_read(primary) && primary == standby {
        Verdict::Same
    } else {
        Verdict::Doubt
    }
}

/// A look at the standby between two at the primary; see the module.
pub(super) fn between(before: &Entry, standby: &Entry, after: &Entry) -> Verdict {
    match first(before, standby) {
        Verdict::Doubt => {}
        verdict => return verdict,
    }
    if is_read(after) && after == standby {
        return Verdict::Same;
    }
    let is_stable = before == after;
    let differs = |kind| if is_stable { Verdict::Differs(kind) } else { Verdict::Doubt };
    if is_absent(after) && !is_absent(before) {
        return Verdict::Gone;
    }
    match (before.status, standby.status) {
        (Status::NotYet, _) | (_, Status::NotYet) => Verdict::Doubt,
        (Status::Damaged, _) => differs(Kind::DamagedOnPrimary),
        (_, Status::Damaged) => Verdict::Differs(Kind::Damaged),
        (Status::PastEnd | Status::NoRelation, _) => differs(Kind::Extra),
        (Status::Read, Status::PastEnd | Status::NoRelation) => differs(Kind::Missing),
        (Status::Read, Status::Read) if is_zero(before) => differs(Kind::ZeroedOnPrimary),
        // It has replayed that LSN, and pages never go back.
        (Status::Read, Status::Read) if standby.lsn < before.lsn => {
            Verdict::Differs(if is_zero(standby) { Kind::Zeroed } else { Kind::Old })
        }
        (Status::Read, Status::Read) if standby.lsn > before.lsn => differs(Kind::OldOnPrimary),
        (Status::Read, Status::Read) => differs(Kind::Bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn page(lsn: u64, digest: u64) -> Entry {
        Entry { status: Status::Read, lsn, digest }
    }

    const fn no(status: Status) -> Entry {
        Entry { status, lsn: 0, digest: 0 }
    }

    const ZERO: Entry = page(0, 0);

    #[test]
    fn a_first_look_never_says_that_copies_differ() {
        assert_eq!(first(&page(5, 1), &page(5, 1)), Verdict::Same);
        for s in [page(5, 2), page(4, 1), page(6, 1), ZERO, no(Status::PastEnd), no(Status::Damaged)] {
            assert_eq!(first(&page(5, 1), &s), Verdict::Doubt, "{s:?}");
        }
        for (p, s) in [(ZERO, ZERO), (ZERO, no(Status::PastEnd)), (page(0, 7), no(Status::PastEnd)), (page(0, 7), ZERO)]
        {
            assert_eq!(first(&p, &s), Verdict::New);
        }
        assert_eq!(first(&no(Status::PastEnd), &no(Status::PastEnd)), Verdict::Gone);
        assert_eq!(first(&no(Status::PastEnd), &page(5, 1)), Verdict::Doubt);
        assert_eq!(first(&ZERO, &page(5, 1)), Verdict::Doubt);
    }

    #[test]
    fn a_page_that_stood_still_must_be_the_same() {
        let p = page(5, 1);
        for (s, kind) in [
            (page(5, 2), Kind::Bytes),
            (page(4, 1), Kind::Old),
            (page(6, 1), Kind::OldOnPrimary),
            (ZERO, Kind::Zeroed),
            (no(Status::PastEnd), Kind::Missing),
            (no(Status::NoRelation), Kind::Missing),
            (no(Status::Damaged), Kind::Damaged),
        ] {
            assert_eq!(between(&p, &s, &p), Verdict::Differs(kind));
        }
        for (p, s, kind) in [
            (ZERO, page(5, 1), Kind::ZeroedOnPrimary),
            (no(Status::Damaged), page(5, 1), Kind::DamagedOnPrimary),
            (no(Status::PastEnd), page(5, 1), Kind::Extra),
        ] {
            assert_eq!(between(&p, &s, &p), Verdict::Differs(kind));
        }
    }

    #[test]
    fn a_page_that_changed_meanwhile_says_nothing_but_that_pages_never_go_back() {
        let (before, after) = (page(5, 1), page(9, 2));
        for s in [page(6, 3), page(5, 3), no(Status::PastEnd), page(10, 3)] {
            assert_eq!(between(&before, &s, &after), Verdict::Doubt, "{s:?}");
        }
        assert_eq!(between(&before, &page(9, 2), &after), Verdict::Same);
        assert_eq!(between(&before, &page(5, 1), &after), Verdict::Same);
        assert_eq!(between(&before, &page(4, 3), &after), Verdict::Differs(Kind::Old));
        assert_eq!(between(&before, &page(6, 3), &no(Status::PastEnd)), Verdict::Gone);
        assert_eq!(between(&no(Status::PastEnd), &page(6, 3), &page(6, 4)), Verdict::Doubt);
        // Bits of a visibility map are cleared without an LSN.
        assert_eq!(between(&page(5, 1), &page(5, 3), &page(5, 2)), Verdict::Doubt);
    }
}
