//! The store against a model that keeps all history in memory and answers by searching it.

use std::collections::HashMap;

use proptest::prelude::*;
use shmuring::request::RelTag;
use shmuring_communicator::service::store::{Store, StoreOptions};
use shmuring_communicator::service::{Mutation, MutationRequest, ReadLsn, PAGE_SIZE};

const BLOCKS: u32 = 6;
// Few, so that versions meet at the horizon.
const LSNS: u64 = 12;

#[derive(Clone, Debug)]
enum Op {
    Write(u8, u32, u64),
    Extend(u8, u32, u64),
    ZeroExtend(u8, u32, u32, u64),
    Create(u8, u64, bool),
    Truncate(u8, u32, u64),
    Unlink(u8, u64, bool),
    Size(u8, u32, u64),
    Commit,
    Gc(u64),
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    // LSN 0 is common, and LSNs often go back.
    let lsn = || prop_oneof![1 => Just(0u64), 4 => 1..LSNS];
    let rel = || 0..2u8;
    prop_oneof![
        6 => (rel(), 0..BLOCKS, lsn()).prop_map(|(r, b, l)| Op::Write(r, b, l)),
        6 => (rel(), 0..BLOCKS, lsn()).prop_map(|(r, b, l)| Op::Extend(r, b, l)),
        2 => (rel(), 0..BLOCKS, 1..3u32, lsn()).prop_map(|(r, b, c, l)| Op::ZeroExtend(r, b, c, l)),
        3 => (rel(), lsn(), any::<bool>()).prop_map(|(r, l, f)| Op::Create(r, l, f)),
        3 => (rel(), 0..BLOCKS, lsn()).prop_map(|(r, b, l)| Op::Truncate(r, b, l)),
        1 => (rel(), lsn(), any::<bool>()).prop_map(|(r, l, f)| Op::Unlink(r, l, f)),
        1 => (rel(), 0..BLOCKS, lsn()).prop_map(|(r, b, l)| Op::Size(r, b, l)),
        6 => Just(Op::Commit),
        2 => (1..LSNS).prop_map(Op::Gc),
        1 => Just(Op::Reopen),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Create or unlink: every block begins anew.
    Born,
    /// Blocks from here on begin anew.
    Cut(u32),
    Grow,
}

#[derive(Clone, Copy, Debug)]
struct Change {
    lsn: u64,
    seq: u64,
    exists: bool,
    nblocks: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
struct Image {
    block: u32,
    lsn: u64,
    seq: u64,
    byte: u8,
}

#[derive(Clone, Debug, Default)]
struct ModelRel {
    /// In the order of their application.
    changes: Vec<Change>,
    images: Vec<Image>,
}

impl ModelRel {
    /// (LSN, seq) of the start of the life of `block` as far as changes up to `seq` tell.
    fn life(&self, block: u32, seq: u64) -> (u64, u64) {
        let starts = |c: &&Change| match c.kind {
            Kind::Born => true,
            Kind::Cut(n) => n <= block,
            Kind::Grow => false,
        };
        self.changes.iter().rev().filter(|c| c.seq <= seq).find(starts).map_or((0, 0), |c| (c.lsn, c.seq))
    }

    fn image(&self, block: u32, lsn: u64, seq: u64) -> Option<Image> {
        let (_, born) = self.life(block, seq);
        let alive = self.images.iter().filter(|i| i.block == block && i.lsn <= lsn && i.seq > born);
        alive.max_by_key(|i| (i.lsn, i.seq)).copied()
    }
}

#[derive(Default)]
struct Model {
    rels: HashMap<u8, ModelRel>,
    seq: u64,
    horizon: u64,
}

impl Model {
    fn size(&self, r: u8) -> Option<u32> {
        self.rels.get(&r)?.changes.last().filter(|c| c.exists).map(|c| c.nblocks)
    }

    fn change(&mut self, r: u8, lsn: u64, exists: bool, nblocks: u32, kind: Kind) {
        self.seq += 1;
        let changes = &mut self.rels.entry(r).or_default().changes;
        let lsn = lsn.max(changes.last().map_or(0, |c| c.lsn));
        changes.push(Change { lsn, seq: self.seq, exists, nblocks, kind });
    }

    fn put(&mut self, r: u8, block: u32, lsn: u64, byte: u8) {
        self.seq += 1;
        let rel = self.rels.get_mut(&r).unwrap();
        let (born, _) = rel.life(block, u64::MAX);
        let lsn = match lsn {
            0 => rel.image(block, u64::MAX, u64::MAX).map_or(born, |i| i.lsn),
            l => l.max(born),
        };
        rel.images.push(Image { block, lsn, seq: self.seq, byte });
    }

    fn grow(&mut self, r: u8, to: u32, lsn: u64) {
        if to > self.size(r).unwrap() {
            self.change(r, lsn, true, to, Kind::Grow);
        }
    }

    fn resize(&mut self, r: u8, to: u32, lsn: u64) {
        let n = self.size(r).unwrap();
        if to != n {
            self.change(r, lsn, true, to, if to < n { Kind::Cut(to) } else { Kind::Grow });
        }
    }

    /// The errno that `op` must end in, and its effect.
    fn apply(&mut self, op: &Op, byte: u8) -> i32 {
        match *op {
            Op::Write(r, b, l) => match self.size(r) {
                None => return libc::ENOENT,
                Some(n) if b >= n => return libc::ENXIO,
                Some(_) => self.put(r, b, l, byte),
            },
            Op::Extend(r, b, l) if self.size(r).is_some() => {
                // The page lives by the cuts before the growth; a growth cuts nothing.
                self.grow(r, b + 1, l);
                self.put(r, b, l, byte);
            }
            Op::ZeroExtend(r, b, c, l) if self.size(r).is_some() => self.grow(r, b + c, l),
            Op::Truncate(r, n, l) if self.size(r).is_some() => self.resize(r, n.min(self.size(r).unwrap()), l),
            Op::Size(r, n, l) if self.size(r).is_some() => self.resize(r, n, l),
            Op::Create(r, _, first) if self.size(r).is_some() => return if first { libc::EEXIST } else { 0 },
            Op::Create(r, l, _) => self.change(r, l, true, 0, Kind::Born),
            Op::Unlink(r, l, _) if self.size(r).is_some() => self.change(r, l, false, 0, Kind::Born),
            Op::Unlink(_, _, false) | Op::Commit | Op::Reopen | Op::Gc(_) => {}
            _ => return libc::ENOENT,
        }
        0
    }

    /// gc may change no answer, so old versions stay here. It does forget cuts (with what they cut) and what is unlinked.
    fn gc(&mut self, horizon: u64) {
        self.horizon = self.horizon.max(horizon);
        for rel in self.rels.values_mut() {
            let Some(base) = rel.changes.iter().rev().find(|c| c.lsn <= horizon).copied() else { continue };
            if !base.exists && rel.changes.last().is_some_and(|c| c.seq == base.seq) {
                *rel = ModelRel::default();
                continue;
            }
            let all = rel.clone();
            rel.images.retain(|i| i.seq > all.life(i.block, base.seq).1);
            for c in rel.changes.iter_mut().filter(|c| c.seq <= base.seq) {
                if let Kind::Cut(_) = c.kind {
                    c.kind = Kind::Grow;
                }
            }
        }
    }

    /// Size and bytes as of `lsn`.
    fn read(&self, r: u8, lsn: u64) -> Option<Vec<u8>> {
        let rel = self.rels.get(&r)?;
        let c = rel.changes.iter().rev().find(|c| c.lsn <= lsn).filter(|c| c.exists)?;
        Some((0..c.nblocks).map(|b| rel.image(b, lsn, c.seq).map_or(0, |i| i.byte)).collect())
    }
}

fn rel(r: u8) -> RelTag {
    RelTag { spc_oid: 1663, db_oid: 5, rel_number: 100, fork: r }
}

fn request(op: &Op, byte: u8) -> Option<MutationRequest> {
    let page = vec![byte; PAGE_SIZE];
    let (mutation, first_attempt) = match *op {
        Op::Write(r, block, lsn) => (Mutation::WritePage { rel: rel(r), block, lsn, pages: page }, true),
        Op::Extend(r, block, lsn) => (Mutation::Extend { rel: rel(r), block, lsn, page }, true),
        Op::ZeroExtend(r, block, count, lsn) => (Mutation::ZeroExtend { rel: rel(r), block, count, lsn }, true),
        Op::Create(r, lsn, first) => (Mutation::Create { rel: rel(r), lsn }, first),
        Op::Truncate(r, blocks, lsn) => (Mutation::Truncate { rel: rel(r), blocks, lsn }, true),
        Op::Unlink(r, lsn, first) => (Mutation::Unlink { rel: rel(r), lsn }, first),
        Op::Size(r, blocks, lsn) => (Mutation::UpdateRelSize { rel: rel(r), blocks, lsn }, true),
        Op::Commit | Op::Gc(_) | Op::Reopen => return None,
    };
    Some(MutationRequest { mutation, first_attempt })
}

fn read(store: &Store, r: u8, lsns: ReadLsn) -> Option<Vec<u8>> {
    let n = store.size_of(rel(r), lsns).unwrap()?;
    let mut out = vec![0xEE; n as usize * PAGE_SIZE];
    if n > 0 {
        store.read_pages(rel(r), 0, n, lsns, &mut out).unwrap();
    }
    Some(out.chunks(PAGE_SIZE).map(|p| if p.iter().all(|b| *b == p[0]) { p[0] } else { 0xEE }).collect())
}

fn compare(store: &Store, model: &Model) {
    for r in 0..2 {
        assert_eq!(read(store, r, ReadLsn::LATEST), model.read(r, u64::MAX), "relation {r} at latest");
        for lsn in model.horizon..=LSNS {
            assert_eq!(read(store, r, ReadLsn::at(lsn)), model.read(r, lsn), "relation {r} at {lsn}");
        }
        if let Some(below) = model.horizon.checked_sub(1) {
            assert_eq!(store.size_of(rel(r), ReadLsn::at(below)).unwrap_err().errno, libc::ERANGE);
        }
    }
}

fn run(ops: &[Op]) {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(dir.path(), StoreOptions { cache_bytes: 1 << 20, ..StoreOptions::default() }).unwrap();
    let (mut store, mut model) = (open(), Model::default());
    let (mut group, mut errnos) = (Vec::new(), Vec::new());
    for (i, op) in ops.iter().chain([&Op::Commit, &Op::Gc(LSNS / 2), &Op::Reopen]).enumerate() {
        let byte = u8::try_from(i % 251 + 1).unwrap();
        if let Some(r) = request(op, byte) {
            errnos.push(model.apply(op, byte));
            group.push(r);
            continue;
        }
        let results = store.apply_group(0, 0, &std::mem::take(&mut group));
        let got: Vec<i32> = results.iter().map(|r| r.as_ref().map_or_else(|e| e.errno, |_| 0)).collect();
        assert_eq!(got, std::mem::take(&mut errnos));
        match op {
            Op::Gc(horizon) => {
                store.gc(*horizon).unwrap();
                model.gc(*horizon);
            }
            Op::Reopen => {
                drop(store);
                store = open();
            }
            _ => continue,
        }
        compare(&store, &model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_answers_as_all_of_history_would(ops in proptest::collection::vec(op(), 1..80)) {
        run(&ops);
    }
}
