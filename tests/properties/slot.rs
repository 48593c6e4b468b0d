//! The functions of `slot.rs` against the transition table of docs/design.md: each moves the word that it was shown,
//! keeps W, and refuses every other, which stays as it is.

use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;

use shmuring::layout::Slot;
use shmuring::slot::{communicator, owner, State, Word, GENERATIONS};

use super::cases;

/// A word by its fields, packed as docs/layout.md says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    pub state: State,
    pub w: bool,
    pub generation: u32,
    pub epoch: u32,
}

impl Fields {
    pub fn bits(self) -> u64 {
        self.state as u64 | u64::from(self.w) << 4 | u64::from(self.generation) << 8 | u64::from(self.epoch) << 32
    }

    pub fn word(self) -> Word {
        Word::from_bits(self.bits())
    }

    fn to(self, state: State) -> Self {
        Self { state, ..self }
    }

    pub fn freed(self) -> Self {
        Self { state: State::Idle, w: false, generation: (self.generation + 1) % GENERATIONS, epoch: 0 }
    }
}

/// Any word; generations and epochs are few, so that two words are often alike.
pub fn fields() -> impl Strategy<Value = Fields> {
    let generation = prop_oneof![0..2u32, GENERATIONS - 1..GENERATIONS];
    let epoch = prop_oneof![0..3u32, Just(u32::MAX)];
    (prop::sample::select(State::ALL.to_vec()), any::<bool>(), generation, epoch)
        .prop_map(|(state, w, generation, epoch)| Fields { state, w, generation, epoch })
}

/// A transition by compare-exchange, with its rows, and what it makes of the word that it was shown.
type Row = (&'static str, fn(&Slot, Word) -> Result<Word, Word>, fn(Fields) -> Fields);

const EPOCH: u32 = 7;

fn word(moved: Result<shmuring::slot::Moved, Word>) -> Result<Word, Word> {
    moved.map(|m| {
        let _ = m.owed;
        m.word
    })
}

const ROWS: [Row; 9] = [
    (
        "3",
        |s, w| word(communicator::claim(s, w, State::Processing, EPOCH)),
        |f| Fields { epoch: EPOCH, ..f.to(State::Processing) },
    ),
    (
        "4",
        |s, w| word(communicator::claim(s, w, State::Copying, EPOCH)),
        |f| Fields { epoch: EPOCH, ..f.to(State::Copying) },
    ),
    ("5", |s, w| word(communicator::begin_copy(s, w)), |f| f.to(State::Copying)),
    ("6", |s, w| word(communicator::suspend(s, w)), |f| f.to(State::Processing)),
    ("7, 8", |s, w| word(communicator::complete(s, w)), |f| f.to(State::Completed)),
    ("10", |s, w| word(owner::withdraw(s, w)), |f| Fields { epoch: 0, ..f.to(State::Withdrawn) }),
    ("11, 13, 17", |s, w| word(communicator::free(s, w)), Fields::freed),
    ("12, 14, 15", |s, w| word(owner::abandon(s, w)), |f| f.to(State::Abandoned)),
    ("16", |s, w| word(communicator::take_over(s, w, EPOCH)), |f| Fields { epoch: EPOCH, ..f.to(State::Processing) }),
];

proptest! {
    #![proptest_config(cases(4000))]

    #[test]
    fn a_word_is_its_fields(f in fields(), bits in any::<u64>()) {
        let w = f.word();
        prop_assert_eq!((w.state(), w.waiter()), (Some(f.state), f.w));
        prop_assert_eq!((w.generation(), w.epoch()), (f.generation, f.epoch));
        prop_assert_eq!(Word::new(f.state, f.generation, f.epoch).bits(), Fields { w: false, ..f }.bits());
        prop_assert!(State::ALL.iter().all(|s| w.is(*s) == (*s == f.state)));
        // Any bits are a word; of sixteen states eight are some (I10).
        let any = Word::from_bits(bits);
        prop_assert_eq!(any.state().is_none(), bits & 8 != 0);
        prop_assert_ne!(format!("{:?}", any), "");
    }

    #[test]
    fn a_transition_moves_the_word_it_was_shown_and_no_other(
        row in 0..ROWS.len(),
        now in fields(),
        shown in fields(),
        same in any::<bool>(),
        only_w in any::<bool>(),
    ) {
        let (name, transition, moved) = ROWS[row];
        let shown = if same { now } else if only_w { Fields { w: !now.w, ..now } } else { shown };
        let slot = Slot::default();
        slot.word.store(now.bits(), Relaxed);
        let result = transition(&slot, shown.word());
        let after = slot.word.load(Relaxed);
        if (Fields { w: now.w, ..shown }) == now {
            // W may have come since, and is kept (R9); #9, #11 and others that free the slot clear it.
            prop_assert_eq!(result, Ok(moved(now).word()), "#{}", name);
            prop_assert_eq!(after, moved(now).bits(), "#{}", name);
        } else {
            prop_assert_eq!(result, Err(now.word()), "#{}", name);
            prop_assert_eq!(after, now.bits(), "#{} changed a word that it was not shown", name);
        }
    }

    #[test]
    fn an_owner_fills_idle_words_alone_and_marks_what_it_was_shown(
        now in fields(),
        shown in fields(),
        same in any::<bool>(),
    ) {
        let slot = Slot::default();
        slot.word.store(now.bits(), Relaxed);
        let idle = Fields { state: State::Idle, w: false, epoch: 0, ..now };
        let filling = Fields { state: State::Filling, ..idle };
        let result = owner::begin_fill(&slot);
        if now == idle {
            prop_assert_eq!(result, Ok(filling.word()));
            prop_assert_eq!(slot.word.load(Relaxed), filling.bits());
            owner::submit(&slot, filling.word());
            prop_assert_eq!(slot.word.load(Relaxed), Fields { state: State::Submitted, ..filling }.bits());
        } else {
            prop_assert_eq!(result, Err(now.word()));
            prop_assert_eq!(slot.word.load(Relaxed), now.bits());
        }
        // #26
        slot.word.store(now.bits(), Relaxed);
        let shown = if same { now } else { shown };
        let marked = Fields { w: true, ..now };
        match owner::set_waiter(&slot, shown.word()) {
            Ok(word) if shown.w => prop_assert_eq!((word, slot.word.load(Relaxed)), (shown.word(), now.bits())),
            Ok(word) => {
                prop_assert_eq!(shown, now);
                prop_assert_eq!((word, slot.word.load(Relaxed)), (marked.word(), marked.bits()));
            }
            Err(word) => {
                prop_assert!(shown != now && !shown.w);
                prop_assert_eq!((word, slot.word.load(Relaxed)), (now.word(), now.bits()));
            }
        }
        // #9, #20: by the owner of a word that nobody else writes.
        for free in [owner::finish, owner::discard_filling] {
            slot.word.store(now.bits(), Relaxed);
            let moved = free(&slot, now.word());
            let _ = moved.owed;
            prop_assert_eq!((moved.word, slot.word.load(Relaxed)), (now.freed().word(), now.freed().bits()));
        }
    }
}
