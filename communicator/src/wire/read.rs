//! What reads name on the wire: relations, LSNs, classes.

use super::proto::page_api;
use crate::service::{ReadLsn, Result, ServiceError};
use shmuring::request::{Class, Lsn, RelTag};

/// A relation fork for the wire.
#[must_use]
pub fn rel_out(rel: RelTag) -> page_api::RelTag {
    page_api::RelTag {
        spc_oid: rel.spc_oid,
        db_oid: rel.db_oid,
        rel_number: rel.rel_number,
        fork_number: u32::from(rel.fork),
    }
}

/// A relation fork from the wire; EINVAL if it is missing or its fork is none.
pub fn rel_in(rel: Option<page_api::RelTag>) -> Result<RelTag> {
    let rel = rel.ok_or_else(|| ServiceError::invalid("no relation is named"))?;
    let fork = u8::try_from(rel.fork_number).ok().filter(|f| *f <= 3);
    let fork = fork.ok_or_else(|| ServiceError::invalid(format!("there is no fork {}", rel.fork_number)))?;
    Ok(RelTag { spc_oid: rel.spc_oid, db_oid: rel.db_oid, rel_number: rel.rel_number, fork })
}

/// LSNs for the wire, taken when the request is sent: the latest is the largest LSN there is (S8). What is as old as can
/// be has not_modified_since 1 there: 0 is that of a client that says nothing, whose read waits for the request LSN (R3).
#[must_use]
pub fn lsns_out(lsns: ReadLsn) -> page_api::ReadLsn {
    page_api::ReadLsn {
        request_lsn: lsns.request_lsn.unwrap_or(Lsn::MAX),
        not_modified_since_lsn: lsns.not_modified_since.max(1),
    }
}

/// LSNs from the wire; EINVAL if they are missing, the request LSN is 0, or it is below not_modified_since (R0). Without
/// not_modified_since that is the request LSN, even the largest there is (R3).
pub fn lsns_in(lsns: Option<page_api::ReadLsn>) -> Result<ReadLsn> {
    let lsns = lsns.ok_or_else(|| ServiceError::invalid("no LSN is named"))?;
    let (r, n) = (lsns.request_lsn, lsns.not_modified_since_lsn);
    if r == 0 || r < n {
        return Err(ServiceError::invalid(format!("request LSN {r:#x} with not_modified_since {n:#x}")));
    }
    let latest = r == Lsn::MAX;
    let n = if n == 0 { r } else { n };
    Ok(ReadLsn { request_lsn: (!latest).then_some(r), not_modified_since: n })
}

/// A class for the wire.
#[must_use]
pub const fn class_out(class: Class) -> page_api::GetPageClass {
    match class {
        Class::Demand => page_api::GetPageClass::Normal,
        Class::Prefetch => page_api::GetPageClass::Prefetch,
        Class::Background => page_api::GetPageClass::Background,
    }
}

/// A class from the wire; one that nobody knows is a query's.
#[must_use]
pub fn class_in(class: i32) -> Class {
    match page_api::GetPageClass::try_from(class) {
        Ok(page_api::GetPageClass::Prefetch) => Class::Prefetch,
        Ok(page_api::GetPageClass::Background) => Class::Background,
        _ => Class::Demand,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_come_back_from_the_wire_as_they_went() {
        let rel = RelTag { spc_oid: 1663, db_oid: 5, rel_number: u32::MAX, fork: 3 };
        assert_eq!(rel_in(Some(rel_out(rel))), Ok(rel));
        assert!(rel_in(None).is_err());
        for fork_number in [4, 256, u32::MAX] {
            assert!(rel_in(Some(page_api::RelTag { fork_number, ..rel_out(rel) })).is_err(), "{fork_number}");
        }
        assert_eq!(lsns_in(Some(lsns_out(ReadLsn::LATEST))), Ok(ReadLsn { not_modified_since: 1, ..ReadLsn::LATEST }));
        for lsns in [ReadLsn::at(7), ReadLsn { request_lsn: None, not_modified_since: 9 }] {
            assert_eq!(lsns_in(Some(lsns_out(lsns))), Ok(lsns));
        }
        for class in [Class::Demand, Class::Prefetch, Class::Background] {
            assert_eq!(class_in(class_out(class) as i32), class);
        }
        assert_eq!(class_in(-1), Class::Demand);
    }

    #[test]
    fn lsns_that_make_no_sense_are_refused() {
        let raw = |r, n| lsns_in(Some(page_api::ReadLsn { request_lsn: r, not_modified_since_lsn: n }));
        assert!(lsns_in(None).is_err() && raw(0, 0).is_err() && raw(8, 9).is_err());
        assert_eq!(raw(8, 0), Ok(ReadLsn::at(8)));
        assert_eq!(raw(Lsn::MAX, 0).map(|l| l.not_modified_since), Ok(Lsn::MAX));
    }
}
