//! The slot word as a value: its bits, and the states that they name. slot.rs says who may turn which into which.

/// Generations of a slot wrap after 2^24: a foreign reference that is so old costs at most a needless wait (R9).
pub const GENERATIONS: u32 = 1 << 24;

const STATE: u32 = 0xF;
const WAITER: u32 = 1 << 4;
const GENERATION_SHIFT: u32 = 8;
const GENERATION: u64 = ((GENERATIONS - 1) << GENERATION_SHIFT) as u64;

/// Where a request is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Free; the owner may fill it.
    Idle = 0,
    /// The owner writes the request.
    Filling = 1,
    /// The request waits for a communicator.
    Submitted = 2,
    /// A communicator has claimed it and does not touch its buffers.
    Processing = 3,
    /// A communicator has claimed it and may touch its buffers.
    Copying = 4,
    /// The result is there; the owner reads it.
    Completed = 5,
    /// Cancelled while claimed; the communicator gives the slot back when its I/O ends.
    Abandoned = 6,
    /// Cancelled before it was claimed; the communicator gives the slot back at the next hint.
    Withdrawn = 7,
}

impl State {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Idle,
        Self::Filling,
        Self::Submitted,
        Self::Processing,
        Self::Copying,
        Self::Completed,
        Self::Abandoned,
        Self::Withdrawn,
    ];

    /// The name used in logs, metrics and C.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Filling => "filling",
            Self::Submitted => "submitted",
            Self::Processing => "processing",
            Self::Copying => "copying",
            Self::Completed => "completed",
            Self::Abandoned => "abandoned",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// A value of the slot word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Word(u64);

impl Word {
    /// The word of so much.
    #[inline]
    #[must_use]
    pub const fn new(state: State, generation: u32, epoch: u32) -> Self {
        let low = state as u32 | (generation % GENERATIONS) << GENERATION_SHIFT;
        Self((epoch as u64) << 32 | low as u64)
    }

    /// The word of these bits.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits of the word.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The low half: what the futex compares.
    #[inline]
    #[must_use]
    pub const fn low(self) -> u32 {
        self.0 as u32
    }

    /// The state; `None` for bytes that no transition ever wrote (I10).
    #[inline]
    #[must_use]
    pub fn state(self) -> Option<State> {
        State::ALL.get((self.low() & STATE) as usize).copied()
    }

    /// Whether the word is in that state.
    #[inline]
    #[must_use]
    pub const fn is(self, state: State) -> bool {
        self.low() & STATE == state as u32
    }

    /// Whether the word is in that state and of that generation; W and epoch aside.
    #[inline]
    #[must_use]
    pub(crate) const fn is_of(self, state: State, generation: u32) -> bool {
        Self((self.low() & !WAITER) as u64).is_just(state, generation)
    }

    /// Whether the word is that state and that generation, and nothing else: no waiter, no epoch.
    #[inline]
    pub(crate) const fn is_just(self, state: State, generation: u32) -> bool {
        // In 64 bits, so that a number that is no generation equals none.
        self.0 == (generation as u64) << GENERATION_SHIFT | state as u64
    }

    /// Whether nothing but that state and a generation is in the word: no waiter, no epoch.
    #[inline]
    pub(super) const fn is_only(self, state: State) -> bool {
        self.0 & !GENERATION == state as u64
    }

    /// Whether someone sleeps on it, or is about to.
    #[inline]
    #[must_use]
    pub const fn waiter(self) -> bool {
        self.low() & WAITER != 0
    }

    /// How often the slot was used, modulo 2^24.
    #[inline]
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.low() >> GENERATION_SHIFT
    }

    /// Epoch of the claim; 0 where there is none.
    #[inline]
    #[must_use]
    pub const fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(super) const fn with_waiter(self) -> Self {
        Self(self.0 | WAITER as u64)
    }

    pub(super) const fn without_waiter(self) -> Self {
        Self(self.0 & !(WAITER as u64))
    }

    /// The same generation and waiter bit in another state and epoch.
    pub(super) const fn moved(self, state: State, epoch: u32) -> Self {
        Self((epoch as u64) << 32 | self.0 & (GENERATION | WAITER as u64) | state as u64)
    }

    /// Idle in the next generation: clears W and epoch.
    pub(super) const fn freed(self) -> Self {
        Self::new(State::Idle, self.generation().wrapping_add(1), 0)
    }
}

impl core::fmt::Debug for Word {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let w = if self.waiter() { "+W" } else { "" };
        let Some(s) = self.state() else { return write!(f, "invalid({:#x})", self.0) };
        write!(f, "{}{w} g{} e{}", s.name(), self.generation(), self.epoch())
    }
}
