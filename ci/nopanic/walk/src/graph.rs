//! What is reachable from an entry.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use crate::ir::{Function, Program};

/// The program with its indirect calls resolved: to every function of the same signature whose address any reachable
/// code takes, directly or through a table.
pub struct Graph<'p> {
    program: &'p Program,
    targets: HashMap<&'p str, Vec<&'p str>>,
}

/// Functions reached, each with the one that it was reached from.
pub type Reached<'p> = BTreeMap<&'p str, Option<&'p str>>;

impl<'p> Graph<'p> {
    /// `roots`: all that may ever be called from outside.
    pub fn new(program: &'p Program, roots: &[&'p str]) -> Self {
        let mut graph = Self { program, targets: HashMap::new() };
        // What new targets reach may take further addresses.
        loop {
            let before: usize = graph.targets.values().map(Vec::len).sum();
            let taken = graph.taken(roots);
            graph.targets.clear();
            for name in taken {
                if let Some(f) = program.functions.get(name) {
                    graph.targets.entry(&f.signature).or_default().push(name);
                }
            }
            if graph.targets.values().map(Vec::len).sum::<usize>() == before {
                return graph;
            }
        }
    }

    /// Every function or global whose address reachable code takes.
    fn taken(&self, roots: &[&'p str]) -> HashSet<&'p str> {
        let mut taken = HashSet::new();
        let mut next = Vec::new();
        for name in self.walk(roots, |_| false).into_keys() {
            if let Some(f) = self.program.functions.get(name) {
                next.extend(f.mentions.iter().map(String::as_str));
            }
        }
        while let Some(name) = next.pop() {
            if taken.insert(name) {
                next.extend(self.program.globals.get(name).into_iter().flatten().map(String::as_str));
            }
        }
        taken
    }

    /// All that is reachable, breadth first, without going on from where `stop` says so.
    pub fn walk(&self, roots: &[&'p str], stop: impl Fn(&str) -> bool) -> Reached<'p> {
        let mut reached: Reached<'p> = roots.iter().map(|r| (*r, None)).collect();
        let mut queue: VecDeque<&str> = roots.iter().copied().collect();
        while let Some(from) = queue.pop_front() {
            let Some(f) = self.program.functions.get(from) else { continue };
            if stop(from) {
                continue;
            }
            for to in self.callees(f) {
                reached.entry(to).or_insert_with(|| {
                    queue.push_back(to);
                    Some(from)
                });
            }
        }
        reached
    }

    fn callees(&self, f: &'p Function) -> impl Iterator<Item = &'p str> + use<'p, '_> {
        let resolved = f.indirect.iter().filter_map(|s| self.targets.get(s.as_str())).flatten().copied();
        let handed_out = f.handed_out.iter().flat_map(|name| self.functions_in(name));
        let by_name = f.calls.iter().map(|name| self.behind_alias(name));
        let mut all: Vec<&str> = by_name.chain(resolved).chain(handed_out).collect();
        all.sort_unstable();
        all.into_iter()
    }

    /// A called name that is no function is an alias of one.
    fn behind_alias(&self, name: &'p str) -> &'p str {
        match self.program.globals.get(name) {
            Some(of) if of.len() == 1 => of.iter().next().map_or(name, String::as_str),
            _ => name,
        }
    }

    /// The functions that a name leads to by way of tables.
    fn functions_in(&self, name: &'p str) -> Vec<&'p str> {
        let mut seen = HashSet::new();
        let mut next = vec![name];
        let mut found = Vec::new();
        while let Some(name) = next.pop() {
            if seen.insert(name) {
                if self.program.functions.contains_key(name) {
                    found.push(name);
                }
                next.extend(self.program.globals.get(name).into_iter().flatten().map(String::as_str));
            }
        }
        found
    }
}
