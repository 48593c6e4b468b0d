//! The instructions of an operation, as one run of it executed them, and the shortest way for another run to any of them.
//!
//! A step costs a trap, and the way to instruction k as many as k: thousands of kills would take minutes. So a victim is
//! run to an address near its end, by a breakpoint of the cpu, and stepped from there. That every run executes the same
//! instructions is checked at each landing, not assumed.

use std::collections::{HashMap, HashSet};

/// Rounds of a loop that are not its middle, at each end.
const FEW: usize = 3;

/// What a run from the mark to the end of the operation went through.
#[derive(Debug, Default)]
pub struct Trace {
    /// Address of each instruction, from the stop at the mark on.
    pub at: Vec<u64>,
    /// Number of the first one after the operation began.
    pub go: usize,
    /// Others acted before this one, or in it.
    pub acted: Option<usize>,
    /// It is a system call, and they acted while the victim slept in it.
    pub in_its_sleep: bool,
    /// System calls that slept.
    pub asleep: Vec<usize>,
}

impl Trace {
    /// The next instruction when others had acted.
    pub fn resumed(&self) -> Option<usize> {
        self.acted.map(|k| k + usize::from(self.in_its_sleep))
    }

    /// Instructions that were executed a few times before, and will be a few times again.
    pub fn middle_rounds(&self) -> HashSet<usize> {
        let mut rounds: HashMap<u64, Vec<usize>> = HashMap::new();
        (self.go..self.at.len()).for_each(|k| rounds.entry(self.at[k]).or_default().push(k));
        let middle = |all: Vec<usize>| all.into_iter().rev().skip(FEW).rev().skip(FEW).collect::<Vec<_>>();
        rounds.into_values().flat_map(middle).collect()
    }
}

/// A way to an instruction: run until the instruction at an address is met so often, then step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Address to run to, and how often it is to be met; `None`: step all the way.
    pub run: Option<(u64, usize)>,
    /// Steps after that.
    pub steps: usize,
}

impl Way {
    fn cost(self) -> usize {
        self.run.map_or(0, |(_, hits)| hits) + self.steps
    }
}

/// The cheapest way from instruction `from` to each after it; the first is that to `from` itself.
pub fn ways(at: &[u64], from: usize, can_run: bool) -> Vec<Way> {
    let mut ways = vec![Way { run: None, steps: 0 }];
    let mut met: HashMap<u64, usize> = HashMap::new();
    for (last, address) in at.iter().skip(from).zip(at.iter().skip(from + 1)) {
        let before = ways[ways.len() - 1];
        let mut way = Way { steps: before.steps + 1, ..before };
        if last == address {
            // An instruction that repeats itself, each time a step: a breakpoint meets it once.
            ways.push(way);
            continue;
        }
        let hits = met.entry(*address).or_default();
        *hits += 1;
        // A breakpoint where the victim stands would be met at once, or not: not worth telling.
        if can_run && *address != at[from] && *hits < way.cost() {
            way = Way { run: Some((*address, *hits)), steps: 0 };
        }
        ways.push(way);
    }
    ways
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_leads_to_the_instruction_and_is_the_shortest_of_its_kind() {
        // Straight on, a loop of three executed four times, straight on.
        let at = [10, 11, 12, 20, 21, 22, 20, 21, 22, 20, 21, 22, 20, 21, 22, 30];
        let ways = ways(&at, 0, true);
        assert_eq!(ways.len(), at.len());
        for (i, way) in ways.iter().enumerate() {
            let run = way.run.map_or(0, |(address, hits)| {
                let met: Vec<_> = (1..at.len()).filter(|j| at[*j] == address).collect();
                met[hits - 1]
            });
            assert_eq!(run + way.steps, i);
            assert!(way.cost() <= i);
        }
        assert_eq!(ways[15], Way { run: Some((30, 1)), steps: 0 });
        assert_eq!(ways[4].cost(), 1);
        assert!(ways[13].cost() <= 4);
    }

    #[test]
    fn an_instruction_that_repeats_itself_is_met_once() {
        let ways = ways(&[1, 2, 5, 5, 5, 7, 5], 0, true);
        assert_eq!((ways[2].run, ways[2].steps), (Some((5, 1)), 0));
        assert_eq!((ways[4].run, ways[4].steps), (Some((5, 1)), 2));
        assert_eq!((ways[6].run, ways[6].steps), (Some((7, 1)), 1));
    }

    #[test]
    fn the_middle_of_a_loop_is_what_is_met_often_before_and_after() {
        let at = [vec![1, 2], [3, 4].repeat(8), vec![5, 2]].concat();
        let middle = Trace { at, go: 1, ..Trace::default() }.middle_rounds();
        assert_eq!(middle, (8..12).collect());
    }

    #[test]
    fn without_breakpoints_every_step_is_taken() {
        let ways = ways(&[1, 2, 3, 2], 1, false);
        assert_eq!(ways.iter().map(|w| (w.run, w.steps)).collect::<Vec<_>>(), [(None, 0), (None, 1), (None, 2)]);
    }
}
