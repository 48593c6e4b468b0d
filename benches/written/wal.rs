//! A real stream of writes: the block references of WAL, as pg_waldump prints them (benches/wal_stream.sh makes a file).

use super::ages::{answering, Ages, HEAD};
use super::contenders::{Page, Random};
use shmuring::request::RelTag;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// The blocks of a line: `blkref #0: rel 1663/5/16384 fork vm blk 7`, where fork is left out for the main fork.
fn blocks(line: &str) -> Vec<Page> {
    line.split("blkref #").skip(1).filter_map(block).collect()
}

fn block(reference: &str) -> Option<Page> {
    let words: Vec<_> = reference.split([' ', ',', ';', '\n']).collect();
    let after = |word| words.iter().position(|w| *w == word).and_then(|i| words.get(i + 1)).copied();
    let mut numbers = after("rel")?.split('/').map(|n| n.parse().ok());
    let (spc_oid, db_oid, rel_number) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let fork = match after("fork") {
        None | Some("main") => 0,
        Some("fsm") => 1,
        Some("vm") => 2,
        Some(_) => 3,
    };
    Some(Page { rel: RelTag { spc_oid, db_oid, rel_number, fork }, block: after("blk")?.parse().ok()? })
}

pub fn run(file: &Path) {
    let lines = BufReader::new(File::open(file).expect("the file")).lines();
    let stream: Vec<Page> = lines.flat_map(|line| blocks(&line.expect("text"))).collect();
    let mut truth: HashMap<Page, u64> = stream.iter().map(|page| (*page, 0)).collect();
    let pages: Vec<_> = truth.keys().copied().collect();
    println!("age of the answer for a random page, in writes; {} writes to {} pages\n", stream.len(), pages.len());
    println!("{HEAD}");
    for (name, shrink) in [("8 MiB each", 1), ("512 KiB each", 16), ("128 KiB each", 64)] {
        let tables = answering(shrink);
        let mut ages = Ages::new(&tables);
        let mut random = Random(7);
        truth.values_mut().for_each(|n| *n = 0);
        for (n, page) in (1..).zip(&stream) {
            tables.iter().for_each(|(_, t)| t.note(*page, n * 8));
            truth.insert(*page, n);
            if n as usize > stream.len() / 2 && n % 10 == 0 {
                let page = pages[random.below(pages.len() as u64) as usize];
                ages.read(&tables, page, n, truth[&page]);
            }
        }
        ages.print(name);
    }
}
