//! How old the answers for cold pages are: the age, in writes, of the LSN that a lookup of a random page gives. Older
//! is better, and the truth is as old as it can be: a read with a young LSN waits for WAL that has nothing to do with
//! it.

use super::contenders::{Contender, Page, Random};

/// Pages written to.
const PAGES: u64 = 8_000_000;
/// A read after so many writes, in the second half.
const EVERY: usize = 50;

/// Which page is written next.
pub enum Writes {
    Uniform,
    /// Exponent, and what the sampler needs.
    Zipf(Zipf),
}

/// Zipf's law by rejection from the integral of its density (Hörmann and Derflinger 1996).
pub struct Zipf {
    s: f64,
    first: f64,
    last: f64,
}

impl Zipf {
    fn new(s: f64) -> Self {
        let mut z = Self { s, first: 0.0, last: 0.0 };
        (z.first, z.last) = (z.integral(1.5) - 1.0, z.integral(PAGES as f64 + 0.5));
        z
    }

    fn integral(&self, x: f64) -> f64 {
        (x.powf(1.0 - self.s) - 1.0) / (1.0 - self.s)
    }

    fn inverse(&self, y: f64) -> f64 {
        (1.0 + y * (1.0 - self.s)).powf(1.0 / (1.0 - self.s))
    }

    /// A rank from 1 on.
    fn sample(&self, random: &mut Random) -> u64 {
        loop {
            let u = self.last + random.unit() * (self.first - self.last);
            let k = self.inverse(u).round().clamp(1.0, PAGES as f64);
            if u >= self.integral(k + 0.5) - k.powf(-self.s) {
                return k as u64;
            }
        }
    }
}

impl Writes {
    pub fn zipf(s: f64) -> Self {
        Self::Zipf(Zipf::new(s))
    }

    pub fn next(&self, random: &mut Random) -> u32 {
        match self {
            Self::Uniform => random.below(PAGES) as u32,
            // Neighbours in rank are no neighbours on disk: 7368787 has no divisor in common with the number of pages.
            Self::Zipf(z) => (z.sample(random) * 7_368_787 % PAGES) as u32,
        }
    }
}

/// Ages of the answers of each contender, and of the truth.
pub struct Ages {
    names: Vec<&'static str>,
    ages: Vec<Vec<u64>>,
}

impl Ages {
    pub fn new(tables: &[(&'static str, Contender)]) -> Self {
        let names: Vec<_> = tables.iter().map(|(name, _)| *name).chain(["the truth"]).collect();
        Self { ages: vec![Vec::new(); names.len()], names }
    }

    /// A read of `page` after write `now`, which was last written by write `truth` (0: never).
    pub fn read(&mut self, tables: &[(&'static str, Contender)], page: Page, now: u64, truth: u64) {
        for ((name, table), ages) in tables.iter().zip(&mut self.ages) {
            let answer = table.get(page);
            assert!(answer >= truth * 8, "{name} is lower than the truth");
            ages.push(now - answer / 8);
        }
        self.ages.last_mut().expect("the truth").push(now - truth);
    }

    /// A row for each: median, and shares of answers younger than 10,000 and 100,000 writes.
    pub fn print(mut self, what: &str) {
        for (name, ages) in self.names.iter().zip(&mut self.ages) {
            ages.sort_unstable();
            let younger = |than| ages.partition_point(|a| *a < than) as f64 * 100.0 / ages.len() as f64;
            let (median, ten, hundred) = (ages[ages.len() / 2], younger(10_000), younger(100_000));
            println!("| {what} | {name} | {median} | {ten:.3} % | {hundred:.2} % |");
        }
    }
}

/// Those that give answers.
pub fn answering(shrink: usize) -> Vec<(&'static str, Contender)> {
    Contender::all(shrink).into_iter().filter(|(_, c)| !matches!(c, Contender::Floor(_))).collect()
}

pub const HEAD: &str = "| writes | | median age | < 10 k | < 100 k |\n|---|---|---|---|---|";

/// All kinds of writes, or the one named so.
pub fn run(writes: usize, only: &str) {
    println!("\nage of the answer for a random page, in writes; {PAGES} pages, {writes} writes, 8 MiB each\n\n{HEAD}");
    let kinds = [("uniform", Writes::Uniform), ("zipf 0.8", Writes::zipf(0.8)), ("zipf 1.1", Writes::zipf(1.1))];
    for (name, kind) in kinds.iter().filter(|(name, _)| only.is_empty() || *name == only) {
        let tables = answering(1);
        let mut ages = Ages::new(&tables);
        let mut truth = vec![0u64; PAGES as usize];
        let mut random = Random(7);
        for n in 1..=writes {
            let block = kind.next(&mut random);
            truth[block as usize] = n as u64;
            tables.iter().for_each(|(_, t)| t.note(Page::of(block), n as u64 * 8));
            if n > writes / 2 && n % EVERY == 0 {
                let block = random.below(PAGES) as u32;
                ages.read(&tables, Page::of(block), n as u64, truth[block as usize]);
            }
        }
        ages.print(name);
    }
}
