//! What an entry may reach: the lists of rules.txt, and what a name means.

use std::collections::{HashMap, HashSet};

use rustc_demangle::demangle;

use crate::ir::Program;

/// What is wrong about a function that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Panics,
    Formats,
    Allocates,
    /// An external function that rules.txt does not name: what it may do is not known.
    Unknown,
}

impl Fault {
    pub const fn text(self) -> &'static str {
        match self {
            Self::Panics => "may panic",
            Self::Formats => "formats text",
            Self::Allocates => "allocates or frees",
            Self::Unknown => "calls an external function that rules.txt does not name",
        }
    }
}

/// rules.txt, read. Each list says of its names why they are in it.
#[derive(Default)]
pub struct Rules {
    /// External functions that neither allocate nor end the process.
    harmless: HashSet<String>,
    /// External functions that allocate or free.
    memory: HashSet<String>,
    /// Entries that may allocate, whose documentation says so.
    allocating: HashSet<String>,
    /// Entries that may reach anything, since they catch panics and are no part of a backend's I/O.
    guarded: HashSet<String>,
    /// Functions that look like a panic and are known not to be one: (entry or `*`, part of the demangled name).
    excused: HashSet<(String, String)>,
}

impl Rules {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rules = Self::default();
        for line in text.lines().map(|l| l.split('#').next().unwrap_or("").trim()).filter(|l| !l.is_empty()) {
            let mut words = line.split_whitespace();
            let kind = words.next().unwrap_or("");
            let names = words.map(str::to_string);
            match kind {
                "harmless" => rules.harmless.extend(names),
                "memory" => rules.memory.extend(names),
                "allocates" => rules.allocating.extend(names),
                "guarded" => rules.guarded.extend(names),
                "excused" => match names.collect::<Vec<_>>().as_slice() {
                    [entry, function] => drop(rules.excused.insert((entry.clone(), function.clone()))),
                    _ => return Err(format!("rules.txt: 'excused ENTRY FUNCTION', not: {line}")),
                },
                _ => return Err(format!("rules.txt: unknown list: {line}")),
            }
        }
        Ok(rules)
    }

    /// What is wrong about `function` when `entry` reaches it. Most of it is known by the external function at its end,
    /// which no list names (`_Unwind_RaiseException`, `abort`); the names of Rust's own functions make shorter reports.
    pub fn fault(&self, program: &Program, entry: &str, function: &str) -> Option<Fault> {
        let fault = self.classify(program, function)?;
        let name = plain(function);
        let excused = self.excused.iter().any(|(e, f)| (e == "*" || e == entry) && name.contains(f.as_str()));
        let allowed = fault == Fault::Allocates && self.allocating.contains(entry);
        (!excused && !allowed).then_some(fault)
    }

    /// Whether this entry may have faults: it must have some then.
    pub fn is_guarded(&self, entry: &str) -> bool {
        self.guarded.contains(entry)
    }

    /// Whether the walk ends at this function, since what it does is known.
    pub fn ends(&self, program: &Program, function: &str) -> bool {
        self.classify(program, function).is_some()
    }

    fn classify(&self, program: &Program, function: &str) -> Option<Fault> {
        let name = plain(function);
        let starts = |with: &[&str]| with.iter().any(|w| name.starts_with(w));
        if starts(&["core::panicking", "std::panicking", "std::process::abort", "std::sys::abort"])
            || ["unwrap_failed", "expect_failed", "handle_alloc_error", "raw_vec::handle_error", "capacity_overflow"]
                .iter()
                .any(|end| name.ends_with(end))
            || matches!(name.as_str(), "llvm.trap" | "llvm.ubsantrap" | "llvm.debugtrap")
        {
            return Some(Fault::Panics);
        }
        if starts(&["core::fmt", "alloc::fmt", "std::fmt"]) {
            return Some(Fault::Formats);
        }
        if self.memory.contains(&name)
            || ["__rust_alloc", "__rust_dealloc", "__rust_realloc", "__rust_alloc_zeroed"]
                .iter()
                .any(|end| name.ends_with(end))
        {
            return Some(Fault::Allocates);
        }
        let is_external = !program.functions.contains_key(function) && !function.starts_with("llvm.");
        (is_external && !self.harmless.contains(&name)).then_some(Fault::Unknown)
    }

    /// Lines of rules.txt that no reached function needs: they would hide what comes later.
    pub fn unused(&self, seen: &HashMap<String, HashSet<String>>) -> Vec<String> {
        let used = |entry: &str, part: &str| {
            seen.iter().any(|(e, names)| (entry == "*" || e == entry) && names.iter().any(|n| n.contains(part)))
        };
        let excused = self.excused.iter().filter(|(e, f)| !used(e, f)).map(|(e, f)| format!("excused {e} {f}"));
        let gone = self.allocating.iter().filter(|e| !seen.contains_key(*e)).map(|e| format!("allocates {e}"));
        let missing = self.guarded.iter().filter(|e| !seen.contains_key(*e)).map(|e| format!("guarded {e}"));
        let mut all: Vec<String> = excused.chain(gone).chain(missing).collect();
        all.sort_unstable();
        all
    }
}

/// The name without its hash, as people write it.
pub fn plain(name: &str) -> String {
    format!("{:#}", demangle(name))
}
