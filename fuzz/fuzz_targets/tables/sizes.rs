//! The relation sizes, the page service's truth, and what the cache may say of it.

use std::collections::BTreeMap;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use shmuring::communicator::Communicator;
use shmuring::lsn::rel_size::{Asked, Change, Outcome, Writer};
use shmuring::parts::Parts;
use shmuring::region::Region;
use shmuring::request::RelTag;
use shmuring::sync::Ordering::Relaxed;

const RELS: u8 = 12;

fn rel(n: u8) -> RelTag {
    RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384 + u32::from(n / 2), fork: n % 2 }
}

/// The holder of the role and its writer, the truth, and what is under way.
pub struct Cache<'r> {
    role: Option<Communicator<'r>>,
    writer: Writer<'r>,
    truth: BTreeMap<u8, u32>,
    changes: Vec<(u8, Change)>,
    asked: Vec<(u8, Option<u32>, Asked)>,
    lsn: u64,
    /// Bytes of the cache were written by someone else since it was last emptied.
    is_spoilt: bool,
}

impl<'r> Cache<'r> {
    /// The first writer.
    pub fn new(region: &'r Region, parts: &'r Parts<'r>) -> Self {
        let (mut role, _) = Communicator::take_role(region, parts).unwrap();
        let writer = role.rel_size_writer().unwrap();
        Self {
            role: Some(role),
            writer,
            truth: BTreeMap::new(),
            changes: Vec::new(),
            asked: Vec::new(),
            lsn: 0,
            is_spoilt: false,
        }
    }

    /// The bytes are somebody's now, if they are `hit`.
    pub fn is_hit(&mut self, hit: bool) {
        self.is_spoilt |= hit;
    }

    /// A change ends: the page service does it, or refuses it.
    fn finish(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let (n, change) = self.changes.remove(u.int_in_range(0..=self.changes.len() - 1)?);
        let to = if u.ratio(1, 8)? { u32::MAX - u32::from(u.arbitrary::<u8>()? % 2) } else { u.int_in_range(0..=9)? };
        let before = self.truth.get(&n).copied();
        let lsn = if u.ratio(1, 16)? { u.arbitrary()? } else { self.lsn };
        let (after, outcome) = match (u.int_in_range(0..=5)?, before) {
            (0, None) => (Some(0), Outcome::Set(0, lsn)),
            (1, Some(size)) => (Some(size.max(to)), Outcome::Raise(to, lsn)),
            (2, Some(size)) => (Some(size.min(to)), Outcome::Lower(to, lsn)),
            (3, Some(_)) => (Some(to), Outcome::Set(to, lsn)),
            (4, Some(_)) => (None, Outcome::Remove(lsn)),
            (_, before) => (before, Outcome::Unknown),
        };
        self.truth.remove(&n);
        after.map(|size| self.truth.insert(n, size));
        self.writer.finish(change, outcome);
        Ok(())
    }

    /// One operation of the communicator, or a next one.
    pub fn step(&mut self, u: &mut Unstructured<'_>, region: &'r Region, parts: &'r Parts<'r>) -> Result<()> {
        self.lsn += 1;
        let n = u.int_in_range(0..=RELS - 1)?;
        match u.int_in_range(0..=15)? {
            0..=4 if self.changes.len() < 8 => self.changes.push((n, self.writer.begin(rel(n)))),
            5..=9 => self.finish(u)?,
            10 | 11 => self.asked.push((n, self.truth.get(&n).copied(), self.writer.ask(rel(n)))),
            12 | 13 if !self.asked.is_empty() => {
                let (_, size, asked) = self.asked.remove(u.int_in_range(0..=self.asked.len() - 1)?);
                self.writer.fill(asked, size, self.lsn);
            }
            14 => self.asked.pop().into_iter().for_each(|(_, _, asked)| self.writer.drop_asked(asked)),
            15 => {
                self.changes.clear();
                self.asked.clear();
                // The role is free before the next one takes it.
                self.role = None;
                let (mut role, _) = Communicator::take_role(region, parts).unwrap();
                self.writer = role.rel_size_writer().unwrap();
                self.role = Some(role);
                self.is_spoilt = false;
            }
            _ => {}
        }
        Ok(())
    }

    /// What the writer knows is the truth, whatever the bytes are; and what backends read, unless they are spoilt.
    pub fn check(&mut self, parts: &Parts<'_>, changes: bool) {
        let life = parts.header.life.life.load(Relaxed);
        for n in 0..RELS {
            let truth = self.truth.get(&n).copied();
            let is_changing = self.changes.iter().any(|(m, _)| *m == n);
            let found = parts.rel_sizes().get(rel(n), life);
            if let (Some(found), false) = (found, self.is_spoilt || changes) {
                assert_eq!(found.blocks, truth, "relation {n}, as a backend reads it");
                assert!(!is_changing, "relation {n} is being changed");
            }
            if let Some(known) = self.writer.known(rel(n)) {
                assert_eq!(known.blocks, truth, "relation {n}, as the writer knows it");
                assert!(!is_changing, "relation {n} is being changed");
            }
        }
    }
}
