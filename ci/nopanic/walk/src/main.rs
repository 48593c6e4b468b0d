//! Walks the call graph of a program from its entries and reports every panic, allocation and unknown external function
//! that one of them can reach, with the calls that lead there. ci/nopanic.sh calls it and says more.
//!
//! `nopanic-walk PROGRAM.ll RULES.txt [--planted]`: with `--planted` the entries are those that must be faulted.

mod graph;
mod ir;
mod rules;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::process::ExitCode;

use graph::{Graph, Reached};
use ir::Program;
use rules::{plain, Fault, Rules};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, rules, rest @ ..] = arguments.as_slice() else {
        return Err("usage: nopanic-walk PROGRAM.ll RULES.txt [--planted]".into());
    };
    let planted = rest.first().is_some_and(|r| r == "--planted");
    let read = |path: &str| std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"));
    let program = Program::parse(&read(program)?)?;
    let rules = Rules::parse(&read(rules)?)?;

    let prefixes: &[&str] = if planted { &["planted_"] } else { &["entry_", "shmuring_"] };
    let exported = program.functions.iter().filter(|(_, f)| f.exported).map(|(name, _)| name.as_str());
    let mut entries: Vec<&str> = exported.filter(|e| prefixes.iter().any(|p| e.starts_with(p))).collect();
    entries.sort_unstable();
    if entries.is_empty() {
        return Err("no entries in the program".into());
    }
    let graph = Graph::new(&program, &entries);
    Ok(if planted {
        check_planted(&program, &rules, &graph, &entries)
    } else {
        check(&program, &rules, &graph, &entries)
    })
}

/// Faults of one entry: the first function of each kind of fault and name.
fn faults<'p>(program: &'p Program, rules: &Rules, entry: &str, reached: &Reached<'p>) -> BTreeSet<(Fault, &'p str)> {
    reached.keys().filter_map(|name| rules.fault(program, entry, name).map(|fault| (fault, *name))).collect()
}

fn check(program: &Program, rules: &Rules, graph: &Graph<'_>, entries: &[&str]) -> bool {
    let mut clean = true;
    let mut functions = HashSet::new();
    let mut seen: HashMap<String, HashSet<String>> = HashMap::new();
    for entry in entries {
        let reached = graph.walk(&[entry], |name| rules.ends(program, name));
        functions.extend(reached.keys().copied());
        seen.insert(entry.to_string(), reached.keys().map(|n| plain(n)).collect());
        let found = faults(program, rules, entry, &reached);
        if rules.is_guarded(entry) {
            if found.is_empty() {
                clean = false;
                println!("rules.txt: nothing needs: guarded {entry}");
            }
            continue;
        }
        for (fault, function) in found {
            clean = false;
            println!("{entry} {}: {}", fault.text(), chain(&reached, function));
        }
    }
    for line in rules.unused(&seen) {
        clean = false;
        println!("rules.txt: nothing needs: {line}");
    }
    println!("{} entries reach {} functions of {}", entries.len(), functions.len(), program.functions.len());
    clean
}

/// Each of these must be faulted, and for what its name says.
fn check_planted(program: &Program, rules: &Rules, graph: &Graph<'_>, entries: &[&str]) -> bool {
    let mut all = true;
    for entry in entries {
        let reached = graph.walk(&[entry], |name| rules.ends(program, name));
        let found = faults(program, rules, entry, &reached);
        let wanted = match *entry {
            "planted_allocation" => Fault::Allocates,
            "planted_thread" => Fault::Unknown,
            "planted_format" => Fault::Formats,
            _ => Fault::Panics,
        };
        match found.iter().find(|(fault, _)| *fault == wanted) {
            Some((fault, function)) => println!("found: {entry} {}: {}", fault.text(), chain(&reached, function)),
            None => {
                all = false;
                println!("NOT FOUND: {entry} {}", wanted.text());
            }
        }
    }
    all
}

/// The calls that lead to `function`.
fn chain(reached: &Reached<'_>, function: &str) -> String {
    let mut names = vec![plain(function)];
    let mut at = function;
    while let Some(Some(from)) = reached.get(at) {
        names.push(plain(from));
        at = from;
    }
    names.reverse();
    names.join(" > ")
}
