//! What the scheduler costs a request, from submit to completion, with few and with many outstanding.
//!
//! One step: the oldest batch in flight is completed, as many requests as were answered are submitted, and what may go
//! goes. So the number outstanding stays what it is, and each request is submitted, sent and completed once. The time is
//! that of a request. Bar: 300 ns, the same at both ends.

#[path = "scheduler/bed.rs"]
mod bed;

use bed::{Bed, Shape, STEP};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};

fn main() {
    let mut c = Criterion::default().configure_from_args();
    for (name, shape) in [("ready", Shape::Ready), ("mixed", Shape::Mixed), ("future", Shape::Future)] {
        let mut group = c.benchmark_group(format!("scheduler, {name}, a request"));
        group.throughput(Throughput::Elements(STEP as u64));
        for outstanding in [10, 100, 1_000, 10_000] {
            let mut bed = Bed::new(outstanding, shape);
            group.bench_function(BenchmarkId::from_parameter(outstanding), |b| {
                b.iter_batched(|| (), |()| bed.step(), BatchSize::NumIterations(64));
            });
        }
        group.finish();
    }
    c.final_summary();
}
