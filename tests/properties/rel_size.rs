//! The cache of relation sizes against the true sizes: what it answers is the truth after every completed change.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use shmuring::communicator::Communicator;
use shmuring::lsn::rel_size::{Asked, Change, Outcome};
use shmuring::region::{Options, Region};
use shmuring::request::RelTag;
use shmuring::sync::Ordering::Relaxed;

use super::cases;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Begins a change; what it does is told when it ends.
    Begin(u8, Do),
    /// Ends the oldest change under way, which fails or succeeds.
    Finish(bool),
    Ask(u8),
    /// The page service answers the oldest question as of when it was asked.
    Fill,
    DropAsked,
    /// A successor takes the role; what was under way is lost.
    TakeOver,
    NewLife,
}

#[derive(Clone, Copy, Debug)]
enum Do {
    Create,
    Extend(u8),
    Truncate(u8),
    Update(u8),
    Unlink,
}

fn step() -> impl Strategy<Value = Step> {
    let what = prop_oneof![
        Just(Do::Create),
        Just(Do::Unlink),
        (0..9u8).prop_map(Do::Extend),
        (0..9u8).prop_map(Do::Truncate),
        (0..9u8).prop_map(Do::Update)
    ];
    prop_oneof![
        8 => (0..12u8, what).prop_map(|(rel, what)| Step::Begin(rel, what)),
        8 => any::<bool>().prop_map(Step::Finish),
        4 => (0..12u8).prop_map(Step::Ask),
        4 => Just(Step::Fill),
        1 => Just(Step::DropAsked),
        1 => Just(Step::TakeOver),
        1 => Just(Step::NewLife),
    ]
}

fn rel(n: u8) -> RelTag {
    RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384 + u32::from(n / 2), fork: n % 2 }
}

/// What the mutation leaves of a size, and what the cache is told.
fn outcome(what: Do, before: Option<u32>, lsn: u64) -> Option<(Option<u32>, Outcome)> {
    Some(match (what, before) {
        (Do::Create, None) => (Some(0), Outcome::Set(0, lsn)),
        (Do::Extend(to), Some(n)) => (Some(n.max(to.into())), Outcome::Raise(to.into(), lsn)),
        (Do::Truncate(to), Some(n)) => (Some(n.min(to.into())), Outcome::Lower(to.into(), lsn)),
        (Do::Update(to), Some(_)) => (Some(to.into()), Outcome::Set(to.into(), lsn)),
        (Do::Unlink, Some(_)) => (None, Outcome::Remove(lsn)),
        _ => return None,
    })
}

/// The page service and what is under way.
#[derive(Default)]
struct Truth {
    sizes: BTreeMap<u8, u32>,
    changes: Vec<(u8, Do, Change)>,
    asked: Vec<(u8, Option<u32>, Asked)>,
    lsn: u64,
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn an_answer_is_the_truth_after_every_completed_change(room in 0..13u32, steps in vec(step(), 1..150)) {
        let options = Options { bounce_per_slot: 0, block_size: 512, rel_sizes: room, ..Options::new(1) };
        let region = Region::create_private(&options).unwrap();
        let parts = region.parts();
        let life = &parts.header.life.life;
        let (mut role, _) = Communicator::take_role(&region, &parts).unwrap();
        let mut writer = role.rel_size_writer().unwrap();
        let mut truth = Truth::default();
        for step in steps {
            truth.lsn += 1;
            match step {
                Step::Begin(n, what) => truth.changes.push((n, what, writer.begin(rel(n)))),
                Step::Finish(succeeds) if !truth.changes.is_empty() => {
                    let (n, what, change) = truth.changes.remove(0);
                    let done = outcome(what, truth.sizes.get(&n).copied(), truth.lsn).filter(|_| succeeds);
                    if let Some((size, _)) = done {
                        truth.sizes.remove(&n);
                        size.map(|s| truth.sizes.insert(n, s));
                    }
                    writer.finish(change, done.map_or(Outcome::Unknown, |(_, o)| o));
                }
                Step::Ask(n) => truth.asked.push((n, truth.sizes.get(&n).copied(), writer.ask(rel(n)))),
                Step::Fill if !truth.asked.is_empty() => {
                    let (_, size, asked) = truth.asked.remove(0);
                    writer.fill(asked, size, truth.lsn);
                }
                Step::DropAsked => truth.asked.pop().into_iter().for_each(|(_, _, asked)| writer.drop_asked(asked)),
                Step::TakeOver => {
                    truth.changes.clear();
                    truth.asked.clear();
                    drop(role);
                    role = Communicator::take_role(&region, &parts).unwrap().0;
                    prop_assert!((0..12).all(|n| parts.rel_sizes().get(rel(n), life.load(Relaxed)).is_none()));
                    writer = role.rel_size_writer().unwrap();
                }
                Step::NewLife => {
                    life.fetch_add(1, Relaxed);
                    let now = life.load(Relaxed);
                    prop_assert!((0..12).all(|n| parts.rel_sizes().get(rel(n), now).is_none()));
                }
                Step::Finish(_) | Step::Fill => {}
            }
            for n in 0..12 {
                let found = parts.rel_sizes().get(rel(n), life.load(Relaxed));
                if let Some(found) = found {
                    prop_assert_eq!(found.blocks, truth.sizes.get(&n).copied(), "relation {}", n);
                    prop_assert!(truth.changes.iter().all(|(m, ..)| *m != n), "a change is under way");
                }
                if life.load(Relaxed) == parts.header.tables.sizes_life.load(Relaxed) as u32 {
                    prop_assert_eq!(found, writer.known(rel(n)));
                }
            }
        }
    }
}
