//! The path over gRPC on loopback: a page server with a store and the client of it, in one process.
//!
//! `cargo bench -p shmuring-communicator --bench grpc` prints, for single pages and for vectors of 32: pages a second, bytes a
//! second, and CPU microseconds a page of client and server together, which a busy machine changes little.

use shmuring::lsn::scheduler::Kind;
use shmuring::request::{Class, RelTag};
use shmuring_communicator::page_server::{Options, PageServer};
use shmuring_communicator::service::grpc::{GrpcOptions, GrpcService};
use shmuring_communicator::service::{
    Mutation, MutationRequest, PageService, Read, ReadBatch, ReadLsn, What, PAGE_SIZE,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };
const BLOCKS: u32 = 4096;
const TIME: Duration = Duration::from_secs(3);
const IDS: &str = "tenant=0000000000000000000000000000000a&timeline=0000000000000000000000000000000b";

fn options(dir: &std::path::Path) -> Options {
    // Nothing that would run beside.
    let (forget_every, checkpoint_every) = (Duration::ZERO, Duration::ZERO);
    Options { forget_every, checkpoint_every, ..Options::new("127.0.0.1:0", dir.join("store")) }
}

/// User and system time of the process so far.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let mut fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11);
    let mut ticks = || fields.next().unwrap().parse::<u64>().unwrap();
    Duration::from_millis((ticks() + ticks()) * 10)
}

/// Batches of `width` blocks, of so many readers at a time.
async fn measure(service: &Arc<GrpcService>, readers: u32, width: u32) {
    let (stop, pages) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (begin, cpu) = (Instant::now(), cpu_time());
    let tasks: Vec<_> = (0..readers)
        .map(|reader| {
            let (service, stop, pages) = (service.clone(), stop.clone(), pages.clone());
            tokio::spawn(async move {
                let mut first = reader * 997 % BLOCKS;
                while !stop.load(Ordering::Relaxed) {
                    let lsns = ReadLsn { request_lsn: None, not_modified_since: 1 };
                    let read = |i| Read { what: What::Page(REL, (first + i) % BLOCKS), lsns, attempt: 0 };
                    let reads = (0..width).map(read).collect();
                    let batch = ReadBatch { kind: Kind::Ready, class: Class::Demand, shard: 0, generation: 0, reads };
                    let mut got = 0;
                    service.read_batch(&batch, &mut |_, answer| got += u64::from(answer.is_ok())).await;
                    assert_eq!(got, u64::from(width), "a read failed");
                    pages.fetch_add(got, Ordering::Relaxed);
                    first = (first + 61 * width) % BLOCKS;
                }
            })
        })
        .collect();
    tokio::time::sleep(TIME).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let (seconds, cpu) = (begin.elapsed().as_secs_f64(), cpu_time() - cpu);
    let pages = pages.load(Ordering::Relaxed) as f64;
    println!(
        "{{\"readers\": {readers}, \"width\": {width}, \"pages_per_s\": {:.0}, \"gb_per_s\": {:.2}, \"cpu_us_per_page\": {:.2}, \
         \"cpus\": {:.2}}}",
        pages / seconds,
        pages * PAGE_SIZE as f64 / seconds / 1e9,
        cpu.as_secs_f64() * 1e6 / pages,
        cpu.as_secs_f64() / seconds
    );
}

fn main() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let server = PageServer::start(&options(dir.path())).await.unwrap();
        let spec = format!("http://{}?{IDS}", server.address());
        let service = Arc::new(GrpcService::open(&spec.parse().unwrap(), GrpcOptions::default()).unwrap());
        service.fence(1, 1).await.unwrap();
        let create = MutationRequest::first(Mutation::Create { rel: REL, lsn: 1 });
        assert!(service.apply(1, 1, Arc::new(vec![create])).await.iter().all(Result::is_ok));
        for first in (0..BLOCKS).step_by(64) {
            let extend = |block: u32| {
                let page = block.to_le_bytes().repeat(PAGE_SIZE / 4);
                MutationRequest::first(Mutation::Extend { rel: REL, block, lsn: 1, page })
            };
            let group = Arc::new((first..first + 64).map(extend).collect());
            assert!(service.apply(1, 1, group).await.iter().all(Result::is_ok));
        }
        for (readers, width) in [(1, 1), (16, 1), (64, 1), (1, 32), (8, 32)] {
            measure(&service, readers, width).await;
        }
        server.stop(Duration::from_secs(5)).await.unwrap();
    });
}
