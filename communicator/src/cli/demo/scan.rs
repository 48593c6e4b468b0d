//! The workload on a `datadir`: every page of every relation, held against the file and its checksum.

use super::super::Failure;
use super::driver::{Plan, Workload};
use super::tally::Tally;
use crate::service::datadir::{checksum, data_checksums_enabled, list_relations};
use crate::service::{Rel, PAGE_SIZE};
use shmuring::request::{Completion, Opcode, RelTag};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Blocks of a file segment: 1 GiB.
const SEGMENT: u32 = 131_072;

/// What a request must come to.
#[derive(Clone, Debug)]
pub(super) enum Expect {
    Pages,
    Value(u64),
    Nothing,
}

/// One backend's share of a data directory.
pub(super) struct Scan {
    root: PathBuf,
    checksums: bool,
    relations: Vec<(RelTag, u32)>,
    /// What is still to be read at least once: relation, first block, blocks.
    chunks: Vec<(RelTag, u32, u32)>,
    files: HashMap<(RelTag, u32), File>,
    /// Whether to go on at random once every page was read.
    go_on: bool,
    rng: u64,
    turn: u32,
}

impl Scan {
    /// The share of backend `index` of `backends`.
    pub(super) fn open(root: &Path, index: u32, backends: u32, max_vector: u32, go_on: bool) -> Result<Self, Failure> {
        let relations = list_relations(root).map_err(|e| e.to_string())?;
        let checksums = data_checksums_enabled(root).map_err(|e| e.to_string())?;
        let step = max_vector.clamp(1, 32);
        let all = relations.iter().flat_map(|(rel, blocks)| {
            (0..*blocks).step_by(step as usize).map(move |first| (*rel, first, step.min(blocks - first)))
        });
        let mine = all.enumerate().filter(|(i, _)| *i as u32 % backends == index).map(|(_, chunk)| chunk);
        let mut chunks: Vec<_> = mine.collect();
        chunks.reverse();
        let rng = u64::from(std::process::id()) << 20 | 1;
        Ok(Self { root: root.into(), checksums, relations, chunks, files: HashMap::new(), go_on, rng, turn: 0 })
    }

    fn random(&mut self, below: u32) -> u32 {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        ((self.rng >> 32) % u64::from(below.max(1))) as u32
    }

    /// Reads the page straight from its file.
    fn direct(&mut self, rel: RelTag, block: u32) -> Result<Vec<u8>, String> {
        let segment = block / SEGMENT;
        let mut page = vec![0; PAGE_SIZE];
        if self.files.len() > 200 {
            self.files.clear();
        }
        let file = match self.files.entry((rel, segment)) {
            std::collections::hash_map::Entry::Occupied(e) => e.into_mut(),
            std::collections::hash_map::Entry::Vacant(e) => {
                let path = path_of(&self.root, rel, segment)?;
                e.insert(File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?)
            }
        };
        let at = u64::from(block % SEGMENT) * PAGE_SIZE as u64;
        file.read_exact_at(&mut page, at).map_err(|e| format!("{rel:?} block {block}: {e}"))?;
        Ok(page)
    }

    fn judge_page(&mut self, rel: RelTag, block: u32, page: &[u8]) -> Result<(), String> {
        if page != self.direct(rel, block)? {
            return Err(format!("{rel:?} block {block}: differs from the file"));
        }
        // A page never used has no checksum; free space maps are not checked by PostgreSQL's readers either, but have one.
        if self.checksums && page.iter().any(|b| *b != 0) {
            checksum::verify(page, block).map_err(|e| format!("{rel:?} block {block}: {e:?}"))?;
        }
        Ok(())
    }
}

/// The file of a segment, as PostgreSQL names it.
fn path_of(root: &Path, rel: RelTag, segment: u32) -> Result<PathBuf, String> {
    let dir = match rel.spc_oid {
        1663 => root.join(format!("base/{}", rel.db_oid)),
        1664 => root.join("global"),
        oid => {
            let spc = root.join(format!("pg_tblspc/{oid}"));
            let entries = std::fs::read_dir(&spc).map_err(|e| format!("{}: {e}", spc.display()))?;
            let mut names = entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with("PG_"));
            let version = names.next().ok_or_else(|| format!("{}: no version directory", spc.display()))?;
            version.path().join(rel.db_oid.to_string())
        }
    };
    let fork = ["", "_fsm", "_vm", "_init"].get(usize::from(rel.fork)).copied().unwrap_or("");
    let suffix = if segment == 0 { String::new() } else { format!(".{segment}") };
    Ok(dir.join(format!("{}{fork}{suffix}", rel.rel_number)))
}

impl Workload for Scan {
    type Expect = Expect;

    fn next(&mut self) -> Option<Plan<Expect>> {
        self.turn += 1;
        let pick = self.random(self.relations.len() as u32) as usize;
        let &(rel, blocks) = self.relations.get(pick)?;
        let more = !self.chunks.is_empty() || self.go_on;
        match self.turn % 16 {
            _ if !more => None,
            3 => Some(Plan::new(Opcode::RelSize, rel, 0, 0, Expect::Value(u64::from(blocks)))),
            7 => Some(Plan::new(Opcode::RelExists, rel, 0, 0, Expect::Value(1))),
            11 => Some(Plan::new(Opcode::Prefetch, rel, 0, blocks.clamp(1, 8) as u8, Expect::Nothing)),
            _ => match self.chunks.pop() {
                Some((rel, first, count)) => Some(Plan::new(Opcode::GetPage, rel, first, count as u8, Expect::Pages)),
                None if blocks == 0 => Some(Plan::new(Opcode::RelSize, rel, 0, 0, Expect::Value(0))),
                None => Some(Plan::new(Opcode::GetPage, rel, self.random(blocks), 1, Expect::Pages)),
            },
        }
    }

    fn judge<'p>(
        &mut self,
        plan: &Plan<Expect>,
        done: &Completion,
        page: &dyn Fn(usize) -> Option<&'p [u8]>,
        tally: &mut Tally,
    ) {
        if !done.is_ok() {
            let (op, block, errno) = (plan.opcode.name(), plan.block, done.errno);
            tally.error(format!("{op} of {} block {block}: errno {errno}", Rel(plan.rel)));
            return;
        }
        match plan.expect {
            Expect::Pages => {
                for i in 0..usize::from(plan.count) {
                    let verdict = match page(i) {
                        Some(p) => self.judge_page(plan.rel, plan.block + i as u32, p),
                        None => Err("no page".into()),
                    };
                    tally.page(verdict);
                }
            }
            Expect::Value(n) if n != done.value => {
                let (op, found) = (plan.opcode.name(), done.value);
                tally.page(Err(format!("{op} of {}: {found}, not {n}", Rel(plan.rel))));
            }
            _ => {}
        }
    }

    fn cancelled(&mut self, _: &Plan<Expect>) {}
}
