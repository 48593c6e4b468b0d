//! From samples to ratios, a table and target/bench/roundtrip.json.

use super::syscalls::{Count, BUSY, PHASES, REQUESTS};
use serde_json::{json, Map, Value};

/// The bars, as ratios to a floor and as system calls a request.
const ONE_IN_FLIGHT: f64 = 1.35;
const IN_FLIGHT_32: f64 = 0.45;
const SYSCALLS: f64 = 0.0;

/// Both floors at one moment, ns a round trip.
#[derive(Clone, Copy)]
pub struct Floors {
    pub one: f64,
    pub two: f64,
}

/// One sample of a workload, between two probes of both floors.
pub struct Sample {
    pub workload: &'static str,
    pub ns: f64,
    pub before: Floors,
    pub after: Floors,
}

/// Where the two cpus were during a sample.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On two cores near each other, as those that share a cache: what the bars are about.
    TwoCores,
    /// On two cores far from each other, both floors several times as long: the bars hold here too.
    FarCores,
    /// On two cores, and the one-line floor in its slow mode: the same workload then looks cheap beside it.
    SlowLine,
    /// On two threads of one core.
    OneCore,
    /// The floors before and after are of different kinds.
    Moved,
}

/// Floors, in ns, that tell the places apart: the last is the two-line floor's, the others the one-line floor's.
#[derive(Clone, Copy)]
pub struct Limits {
    pub one_core: f64,
    pub slow_line: f64,
    pub far_cores: f64,
}

impl Limits {
    fn place(self, floors: Floors) -> Place {
        if floors.one < self.one_core {
            Place::OneCore
        } else if floors.one < self.slow_line {
            Place::TwoCores
        } else if floors.two >= self.far_cores {
            Place::FarCores
        } else {
            Place::SlowLine
        }
    }
}

impl Sample {
    fn place(&self, limits: Limits) -> Place {
        let (before, after) = (limits.place(self.before), limits.place(self.after));
        if before == after {
            before
        } else {
            Place::Moved
        }
    }

    fn vs_one(&self) -> f64 {
        self.ns / ((self.before.one + self.after.one) / 2.0)
    }

    fn vs_two(&self) -> f64 {
        self.ns / ((self.before.two + self.after.two) / 2.0)
    }
}

/// Lower quartile, median, upper quartile; `None` of nothing.
fn quartiles(values: impl Iterator<Item = f64>) -> Option<[f64; 3]> {
    let mut v: Vec<f64> = values.collect();
    v.sort_by(f64::total_cmp);
    let at = |q: usize| v[(v.len() - 1) * q / 4];
    (!v.is_empty()).then(|| [at(1), at(2), at(3)])
}

fn round(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}

fn summary(of: Option<[f64; 3]>) -> Value {
    of.map_or(
        Value::Null,
        |[low, median, high]| json!({ "median": round(median), "q1": round(low), "q3": round(high) }),
    )
}

/// A whole run.
pub struct Report {
    pub samples: Vec<Sample>,
    pub workloads: Vec<&'static str>,
    pub syscalls: Result<[Count; PHASES.len()], String>,
    pub limits: Limits,
    pub pinned: bool,
    pub ms: u64,
}

impl Report {
    fn at(&self, place: Place) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |s| s.place(self.limits) == place)
    }

    fn of(&self, place: Place, workload: &str, f: impl Fn(&Sample) -> f64) -> Option<[f64; 3]> {
        quartiles(self.at(place).filter(|s| s.workload == workload).map(f))
    }

    /// The median beside near cores or beside far ones, whichever is worse.
    fn worse(&self, workload: &str, f: impl Fn(&Sample) -> f64) -> Option<f64> {
        let places = [Place::TwoCores, Place::FarCores];
        places.into_iter().filter_map(|place| self.of(place, workload, &f)).map(|[_, m, _]| m).max_by(f64::total_cmp)
    }

    /// Name, bar, measured.
    fn bars(&self) -> [(&'static str, f64, Option<f64>); 3] {
        let busy = |counts: &[Count; PHASES.len()]| {
            counts.iter().take(BUSY).map(|c| c.client + c.server).sum::<u64>() as f64 / (REQUESTS * BUSY as u64) as f64
        };
        [
            ("one_in_flight_vs_two_line", ONE_IN_FLIGHT, self.worse("one_in_flight", Sample::vs_two)),
            ("in_flight_32_vs_one_line", IN_FLIGHT_32, self.worse("in_flight_32", Sample::vs_one)),
            ("syscalls_per_request_busy", SYSCALLS, self.syscalls.as_ref().ok().map(busy)),
        ]
    }

    /// Whether every bar was measured and met.
    pub fn is_met(&self) -> bool {
        self.bars().iter().all(|(_, bar, is)| is.is_some_and(|is| is <= *bar))
    }

    fn floors(&self, place: Place) -> Value {
        json!({
            "one_line_ns": summary(quartiles(self.at(place).map(|s| s.before.one))),
            "two_line_ns": summary(quartiles(self.at(place).map(|s| s.before.two))),
        })
    }

    fn place(&self, place: Place) -> Value {
        let workloads: Map<String, Value> = self
            .workloads
            .iter()
            .map(|w| {
                let value = json!({
                    "ns": summary(self.of(place, w, |s| s.ns)),
                    "vs_one_line": summary(self.of(place, w, Sample::vs_one)),
                    "vs_two_line": summary(self.of(place, w, Sample::vs_two)),
                });
                ((*w).to_string(), value)
            })
            .collect();
        json!({ "samples": self.at(place).count(), "floors": self.floors(place), "workloads": workloads })
    }

    /// What goes into the file.
    pub fn json(&self) -> Value {
        let mut out = Map::new();
        let mut bars = Map::new();
        for (name, bar, is) in self.bars() {
            let is = is.map_or(Value::Null, |is| json!(is));
            out.insert(name.to_string(), is.clone());
            let met = is.as_f64().map(|is| is <= bar);
            bars.insert(name.to_string(), json!({ "at_most": bar, "measured": is, "met": met }));
        }
        out.insert("bars".into(), bars.into());
        out.insert("two_cores".into(), self.place(Place::TwoCores));
        out.insert("far_cores".into(), self.place(Place::FarCores));
        out.insert("two_cores_slow_line".into(), self.place(Place::SlowLine));
        out.insert("one_core".into(), self.place(Place::OneCore));
        out.insert("samples_moved".into(), self.at(Place::Moved).count().into());
        out.insert("syscalls".into(), self.syscalls_json());
        out.insert("sample_ms".into(), self.ms.into());
        out.insert("one_core_below_ns".into(), self.limits.one_core.into());
        out.insert("slow_line_from_ns".into(), self.limits.slow_line.into());
        out.insert("far_cores_from_ns".into(), self.limits.far_cores.into());
        out.insert("pinned".into(), self.pinned.into());
        let raw = self.samples.iter().map(|s| {
            json!([
                s.workload,
                round(s.ns),
                round(s.before.one),
                round(s.before.two),
                round(s.after.one),
                round(s.after.two)
            ])
        });
        out.insert("samples".into(), raw.collect());
        out.into()
    }

    fn syscalls_json(&self) -> Value {
        let counts = match &self.syscalls {
            Ok(counts) => counts,
            Err(why) => return json!({ "not_counted": why }),
        };
        let phases = PHASES.iter().zip(counts).map(|(name, c)| {
            let calls: Map<String, Value> = c.calls.iter().map(|(nr, n)| (nr.to_string(), json!(n))).collect();
            let value = json!({
                "requests": REQUESTS,
                "client": c.client,
                "server": c.server,
                "per_request": c.per_request(),
                "by_number": calls,
            });
            ((*name).to_string(), value)
        });
        phases.collect::<Map<_, _>>().into()
    }

    /// The table of a run.
    pub fn print(&self) {
        let places = [
            (Place::TwoCores, "two cores, near (the bars)"),
            (Place::FarCores, "two cores, far (the bars)"),
            (Place::SlowLine, "two cores, one-line floor in its slow mode (kept apart)"),
            (Place::OneCore, "one core, two threads of it (kept apart)"),
        ];
        for (place, title) in places {
            self.print_place(place, title);
        }
        let moved = self.at(Place::Moved).count();
        if moved > 0 {
            println!("{moved} samples left out: the floors before and after were of different kinds.");
        }
        match &self.syscalls {
            Ok(counts) => {
                for (name, c) in PHASES.iter().zip(counts) {
                    println!("system calls, {name}: client {}, server {} in {REQUESTS} requests", c.client, c.server);
                }
            }
            Err(why) => println!("system calls: not counted, {why}"),
        }
        for (name, bar, is) in self.bars() {
            match is {
                Some(is) if is <= bar => println!("met      {name}: {is:.3} (at most {bar})"),
                Some(is) => println!("NOT MET  {name}: {is:.3} (at most {bar})"),
                None => println!("UNKNOWN  {name}: no sample (at most {bar})"),
            }
        }
    }

    fn print_place(&self, place: Place, title: &str) {
        let Some([_, one, _]) = quartiles(self.at(place).map(|s| s.before.one)) else { return };
        let two = quartiles(self.at(place).map(|s| s.before.two)).map_or(0.0, |[_, m, _]| m);
        println!("\n{title}: one-line floor {one:.0} ns, two-line floor {two:.0} ns (medians)");
        println!(
            "{:<26}{:>9}{:>12}{:>12}  {:>15}{:>5}",
            "workload", "ns", "x one-line", "x two-line", "quartiles", "n"
        );
        for w in &self.workloads {
            let n = self.at(place).filter(|s| s.workload == *w).count();
            let Some([_, ns, _]) = self.of(place, w, |s| s.ns) else { continue };
            let one = self.of(place, w, Sample::vs_one).unwrap_or_default();
            let two = self.of(place, w, Sample::vs_two).unwrap_or_default();
            let spread = if *w == "one_in_flight" { two } else { one };
            let spread = format!("{:.2} to {:.2}", spread[0], spread[2]);
            println!("{w:<26}{ns:>9.0}{:>12.2}{:>12.2}  {spread:>15}{n:>5}", one[1], two[1]);
        }
        println!();
    }
}
