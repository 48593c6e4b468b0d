//! Logs into processes.

use super::super::fleet::COMMUNICATOR;
use super::super::log::{self, Kind, Record};
use super::Faults;
use crate::cli::Failure;
use std::collections::HashMap;
use std::path::Path;

/// When a process was stopped: from and to, ns.
pub(super) type Stops = HashMap<(String, u32), Vec<(u64, u64)>>;

/// The log of one post.
pub(super) struct Post {
    pub(super) name: String,
    /// Its processes, one after the other.
    pub(super) processes: Vec<Vec<Record>>,
}

/// All logs of a round.
pub(super) struct Logs {
    pub(super) posts: Vec<Post>,
    pub(super) stops: Stops,
}

pub(super) fn read(dir: &Path, faults: &mut Faults) -> Result<Logs, Failure> {
    let mut logs = Logs { posts: Vec::new(), stops: Stops::new() };
    let mut names: Vec<String> =
        std::fs::read_dir(dir)?.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    for name in names {
        let (records, torn) = log::read(&dir.join(&name))?;
        if name == "signals" {
            logs.stops = stops(&records);
        } else {
            let processes = processes(&name, &records, &torn, faults);
            logs.posts.push(Post { name, processes });
        }
    }
    Ok(logs)
}

/// Cuts a log at the start of each process; a record is torn or missing nowhere but at the end of one.
fn processes(name: &str, records: &[Record], torn: &[usize], faults: &mut Faults) -> Vec<Vec<Record>> {
    let starts = |i: usize| records.get(i).is_none_or(|r| r.kind == Kind::Start);
    for at in torn.iter().filter(|at| !starts(**at)) {
        faults.add(format_args!("(log) {name}: a record is damaged before record {at}, in the middle of a process"));
    }
    let mut all: Vec<Vec<Record>> = Vec::new();
    for record in records {
        match all.last_mut() {
            Some(current) if record.kind != Kind::Start => {
                let expected = current.len() as u16;
                let first = current.first().map_or(0, |r| r.incarnation);
                if record.seq != expected || record.incarnation != first {
                    faults.add(format_args!("(log) {name}: record {} where {expected} of {first} is due", record.seq));
                }
                current.push(*record);
            }
            _ if record.kind == Kind::Start && record.seq == 0 => all.push(vec![*record]),
            _ => faults.add(format_args!("(log) {name}: a log begins with {:?} {}", record.kind, record.seq)),
        }
    }
    all
}

fn stops(records: &[Record]) -> Stops {
    let mut all = Stops::new();
    for r in records.iter().filter(|r| r.slot != COMMUNICATOR) {
        let of = all.entry((format!("backend-{}", r.slot), r.incarnation)).or_default();
        match r.code as i32 {
            // Until it goes on, or for ever.
            libc::SIGSTOP => of.push((r.time, u64::MAX)),
            libc::SIGCONT => {
                if let Some(last) = of.last_mut() {
                    last.1 = r.time;
                }
            }
            _ => {}
        }
    }
    all
}
