//! The order of kills and stops: it follows from the seed alone. When each falls depends on the machine.

use super::mix::Random;
use std::time::Duration;

/// What is done to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blow {
    KillBackend(u32),
    KillCommunicator,
    /// Stopped for a while, then continued.
    StopBackend(u32, Duration),
    StopCommunicator(Duration),
}

/// A blow, and how long after the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) after: Duration,
    pub(super) blow: Blow,
}

/// All events of a run, made one by one.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    random: Random,
    posts: u32,
    /// Mean time between two kills of backends.
    gap: Duration,
    kills: u32,
    communicator_kills: u32,
}

impl Schedule {
    pub(super) fn new(seed: u64, posts: u32, rate: u32, kills: u32, communicator_kills: u32) -> Self {
        // Seeds that people choose are small numbers: spread their bits.
        let mut random = Random((seed.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.below(1);
        Self { random, posts, gap: Duration::from_secs(1) / rate.max(1), kills, communicator_kills }
    }

    /// Kills that are still to come: of backends, of communicators.
    pub(super) fn left(&self) -> (u32, u32) {
        (self.kills, self.communicator_kills)
    }

    fn time(&mut self, most: u32) -> Duration {
        Duration::from_micros(u64::from(1 + self.random.below(most * 1000)))
    }
}

impl Iterator for Schedule {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let left = self.kills + self.communicator_kills;
        if left == 0 {
            return None;
        }
        let after = self.gap * self.random.below(2000) / 1000;
        let post = self.random.below(self.posts);
        let blow = match self.random.below(100) {
            0..=11 => Blow::StopBackend(post, self.time(150)),
            12..=14 => Blow::StopCommunicator(self.time(300)),
            _ if self.random.below(left) < self.communicator_kills => {
                self.communicator_kills -= 1;
                Blow::KillCommunicator
            }
            _ => {
                self.kills -= 1;
                Blow::KillBackend(post)
            }
        };
        Some(Event { after, blow })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays_the_order_and_another_gives_another() {
        let all = |seed| Schedule::new(seed, 8, 10, 100, 10).collect::<Vec<_>>();
        assert_eq!(all(7), all(7));
        assert_ne!(all(7), all(8));
        let count = |f: fn(&Blow) -> bool| all(7).iter().filter(|e| f(&e.blow)).count();
        assert_eq!(count(|b| matches!(b, Blow::KillBackend(_))), 100);
        assert_eq!(count(|b| matches!(b, Blow::KillCommunicator)), 10);
        assert!(count(|b| matches!(b, Blow::StopBackend(..) | Blow::StopCommunicator(_))) > 0);
    }
}
