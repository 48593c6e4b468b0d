//! The scheduler in the server: real backends over a region, and a store whose servers lag, fail and stop as they are told.

mod faulty;

use faulty::{Bed, REL};
use shmuring::backend::{Cancelled, Wait};
use shmuring::lsn::scheduler::{Kind, Options};
use shmuring::request::{Buffers, Opcode, Request};
use shmuring::stats::RoleCounter;
use shmuring_communicator::cache::{Cache, Sizes};
use shmuring_communicator::service::{Ingest, Retry, What};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

fn read(block: u32, lsn: u64) -> Request<'static> {
    Request::get_page(REL, block, 1, lsn)
}

fn lags(floor: u64) -> Ingest {
    Ingest::Lags { sharding: shmuring::lsn::shards::Sharding::NONE, floor }
}

#[test]
fn reads_of_old_data_go_on_while_others_wait_for_wal() {
    let bed = Bed::new(lags(0), Options::default());
    let mut b = bed.backend(0, 32);
    bed.service.ingest_to(100);
    assert_eq!(b.ask(&read(0, 100)).errno, 0);
    let late: Vec<_> = (0..4).map(|i| b.send(&read(i, 1000 + u64::from(i)))).collect();
    for i in 0..200 {
        // Blocks that nobody waits for, and those that the waiting reads want as of later.
        assert_eq!(b.ask(&read(i % 8, u64::from(i) % 101)).errno, 0);
    }
    for r in &late {
        assert!(!b.backend.poll(*r).unwrap(), "answered before its WAL came");
    }
    bed.service.ingest_to(1001);
    assert_eq!((b.end(late[0]).errno, b.end(late[1]).errno), (0, 0));
    assert!(!b.backend.poll(late[2]).unwrap() && !b.backend.poll(late[3]).unwrap());
    bed.service.ingest_to(2000);
    assert_eq!((b.end(late[2]).errno, b.end(late[3]).errno), (0, 0));
    for (kind, lsns) in bed.service.batches() {
        let mixed = kind == Kind::Future && lsns.iter().any(|n| *n != lsns[0]);
        assert!(!mixed, "a FUTURE batch of several LSNs: {lsns:?}");
    }
}

#[test]
fn what_others_hear_of_ingest_has_reads_tried_and_makes_none_ready() {
    let never = u64::MAX / 2;
    let bed = Bed::new(lags(0), Options { patience: never, patience_unheard: never, ..Options::default() });
    let mut b = bed.backend(0, 32);
    bed.service.ingest_to(100);
    assert_eq!(b.ask(&read(0, 100)).errno, 0);
    let late: Vec<_> = (0..6).map(|i| b.send(&read(8 + i, 1000 + u64::from(i)))).collect();
    let sent = |n| bed.service.batches().iter().any(|(kind, lsns)| *kind == Kind::Future && lsns[..] == [n]);
    assert!(bed.soon(|| sent(1000) && sent(1001)), "the canaries");
    assert!(!bed.feedback().tell(1, 1003), "there is one shard");
    assert!(bed.feedback().tell(0, 50) && bed.feedback().tell(0, 1003));
    assert!(bed.soon(|| sent(1002) && sent(1003)), "{:?}", bed.service.batches());
    // It is not so: they wait, and nobody with them.
    for i in 0..100 {
        assert_eq!(b.ask(&read(i % 8, u64::from(i) % 101)).errno, 0);
    }
    assert!(late.iter().all(|r| !b.backend.poll(*r).unwrap()));
    assert!(!sent(1004) && !sent(1005), "nothing was heard of those");
    let is_wrong = |(kind, lsns): &(Kind, Vec<u64>)| match kind {
        Kind::Ready => lsns.iter().any(|n| *n > 100),
        _ => lsns.iter().any(|n| *n != lsns[0]),
    };
    assert!(!bed.service.batches().iter().any(is_wrong), "{:?}", bed.service.batches());
    bed.service.ingest_to(2000);
    for r in late {
        assert_eq!(b.end(r).errno, 0);
    }
}

#[test]
fn nothing_that_many_threads_say_of_ingest_holds_up_what_a_server_has_or_keeps_back_what_it_gets() {
    let bed = Bed::new(lags(0), Options::default());
    let mut b = bed.backend(0, 32);
    bed.service.ingest_to(100);
    assert_eq!(b.ask(&read(0, 100)).errno, 0);
    let late: Vec<_> = (0..6).map(|i| b.send(&read(8 + i, 1000 + u64::from(i)))).collect();
    std::thread::scope(|scope| {
        for who in 0..4_u64 {
            let feedback = bed.feedback();
            scope.spawn(move || {
                for i in 0..500 {
                    assert!(feedback.tell(0, [i, u64::MAX - i, 1 << (i % 64), 0][((who + i) % 4) as usize]));
                    assert!(!feedback.tell(1 + (i << who) as usize, 7));
                }
            });
        }
        for i in 0..200 {
            assert_eq!(b.ask(&read(i % 8, u64::from(i) % 101)).errno, 0);
        }
    });
    // The server is another one now, and further back than what the last has proved.
    bed.service.ingest_to(50);
    bed.service.reconnected(0, 1, 40);
    assert!(bed.feedback().tell(0, 60));
    assert_eq!(b.ask(&read(1, 45)).errno, 0);
    assert!(late.iter().all(|r| !b.backend.poll(*r).unwrap()), "answered before its WAL came");
    assert!(bed.feedback().tell(0, u64::MAX));
    assert_eq!(b.ask(&read(2, 50)).errno, 0);
    bed.service.ingest_to(2000);
    for r in late {
        assert_eq!(b.end(r).errno, 0);
    }
}

#[test]
fn a_vector_is_split_by_lsn_and_answered_whole() {
    let bed = Bed::new(lags(0), Options::default());
    let mut b = bed.backend(0, 32);
    bed.service.ingest_to(100);
    b.ask(&read(0, 100));
    let mut lsns = [50; 8];
    lsns[5] = 500;
    let hot = b.send(&Request { block_lsns: &lsns, ..Request::get_page(REL, 0, 8, 0) });
    assert!(bed.soon(|| bed.service.batches().iter().any(|(kind, n)| *kind == Kind::Future && n[..] == [500])));
    let cold = bed.service.batches().iter().any(|(kind, n)| *kind == Kind::Ready && n.contains(&50));
    assert!(cold && !b.backend.poll(hot).unwrap());
    bed.service.ingest_to(500);
    b.backend.wait(hot, &Wait::for_ms(20_000)).unwrap();
    for i in 0..8 {
        let page = b.backend.page(hot, i).unwrap();
        assert!(page == faulty::page(i as u32, 0), "block {i}");
    }
    assert_eq!({ b.backend.finish(hot).unwrap().value }, 8);
}

#[test]
fn readers_of_a_block_share_one_read() {
    let bed = Bed::new(Ingest::Immediate, Options::default());
    let mut b = bed.backend(0, 16);
    bed.service.hold_reads(true);
    let all: Vec<_> = (0..10).map(|_| b.send(&read(3, 0))).collect();
    assert!(bed.soon(|| bed.counter(RoleCounter::Joined) == 9));
    bed.service.hold_reads(false);
    for r in all {
        b.backend.wait(r, &Wait::for_ms(20_000)).unwrap();
        assert!(b.backend.page(r, 0).unwrap() == faulty::page(3, 0));
        assert_eq!(b.backend.finish(r).unwrap().errno, 0);
    }
    assert_eq!(bed.service.asked(What::Page(REL, 3)), 1);
}

#[test]
fn a_write_waits_for_a_read_of_its_block_and_the_log_names_both() {
    let log = faulty::Log::capture();
    let bed = Bed::new(Ingest::Immediate, Options::default());
    let mut b = bed.backend(0, 16);
    bed.service.hold_reads(true);
    let reader = b.send(&read(3, 0));
    assert!(bed.soon(|| bed.service.asked(What::Page(REL, 3)) == 1));
    let image = faulty::page(3, 7);
    let writer = b.send(&Request::write_page(REL, 3, 1, 70, &image));
    // Not of that block: it does not wait.
    assert_eq!(b.ask_value(&read(5, 0)).0, 0);
    std::thread::sleep(Duration::from_millis(30));
    assert!(!b.backend.poll(writer).unwrap());
    bed.service.hold_reads(false);
    b.backend.wait(reader, &Wait::for_ms(20_000)).unwrap();
    assert!(b.backend.page(reader, 0).unwrap() == faulty::page(3, 0), "from before the write");
    let (r, w) = (faulty::name(reader), faulty::name(writer));
    b.end(reader);
    assert_eq!(b.end(writer).errno, 0);
    let line = format!("request {w} waits for request {r}: both touch 1663/5/16384.0 block 3");
    assert!(bed.soon(|| log.text().contains(&line)), "no '{line}' in {}", log.text());
    assert!(bed.soon(|| bed.counter(RoleCounter::Blocked) == 1));
    let waited = || -> u64 { bed.parts().role_stats.blocked.iter().map(|n| n.load(Ordering::Relaxed)).sum() };
    assert!(bed.soon(|| waited() == 1), "one wait in the histogram");
}

#[test]
fn a_cancelled_read_gives_its_slot_back_although_its_answer_does_not_come() {
    let bed = Bed::new(lags(0), Options::default());
    let mut b = bed.backend(0, 2);
    let parked = b.send(&read(0, 1_000_000));
    let other = b.send(&read(1, 1_000_000));
    assert!(bed.soon(|| !bed.service.batches().is_empty()));
    assert_eq!(b.backend.cancel(parked, &Wait::for_ms(1000)), Ok(Cancelled::Abandoned));
    let begin = Instant::now();
    b.backend.wait_free(&Wait::for_ms(20_000)).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert!(!b.backend.poll(other).unwrap());
}

#[test]
fn a_deadline_is_kept_while_a_read_waits_for_wal() {
    let log = faulty::Log::capture();
    let bed = Bed::new(lags(0), Options::default());
    let mut b = bed.backend(0, 4);
    let begin = Instant::now();
    let deadline = Some(shmuring::clock::now() + 80_000_000);
    let done = b.ask(&Request { deadline, ..read(0, 5000) });
    let took = begin.elapsed();
    assert_eq!(i32::from(done.errno), libc::ETIMEDOUT);
    assert!(took > Duration::from_millis(75) && took < Duration::from_secs(5), "{took:?}");
    assert!(bed.soon(|| log.text().contains("waiting for LSN 0/1388")), "{}", log.text());
}

#[test]
fn reads_are_tried_again_and_given_up_with_the_cause() {
    let bed = Bed::new(Ingest::Immediate, Options { failures: 3, backoff: 1_000_000, ..Options::default() });
    let mut b = bed.backend(0, 4);
    bed.service.fail_reads(2, Retry::Later);
    let done = b.ask(&read(0, 0));
    assert_eq!((done.errno, done.attempts), (0, 3));
    bed.service.fail_reads(100, Retry::Reconnect);
    let done = b.ask(&read(1, 0));
    assert_eq!((i32::from(done.errno), done.attempts), (libc::ECONNRESET, 4));
    bed.service.fail_reads(1, Retry::Never);
    let done = b.ask(&read(2, 0));
    assert_eq!((i32::from(done.errno), done.attempts), (libc::ECONNRESET, 1));
    bed.service.fail_reads(0, Retry::Never);
    assert!(bed.soon(|| bed.counter(RoleCounter::SentAgain) == 5));
}

#[test]
fn waits_for_wal_that_a_server_gives_up_are_no_failures() {
    let bed = Bed::new(lags(0), Options { failures: 1, ..Options::default() });
    let mut b = bed.backend(0, 4);
    bed.service.patience(Duration::from_millis(15));
    let waiting = b.send(&read(0, 900));
    assert!(bed.soon(|| bed.counter(RoleCounter::LsnTimeouts) >= 5));
    bed.service.ingest_to(900);
    let done = b.end(waiting);
    assert!(done.errno == 0 && done.attempts > 5, "{done:?}");
}

#[test]
fn mutations_that_are_tried_again_keep_their_order() {
    let bed = Bed::new(Ingest::Immediate, Options { backoff: 1_000_000, ..Options::default() });
    let mut b = bed.backend(0, 40);
    for round in 0..20u32 {
        bed.service.fail_mutation_after(round % 5, Retry::Later);
        let images: Vec<_> = (0..16).map(|i| faulty::page(i % 3, 1 + round * 100 + i)).collect();
        let requests: Vec<_> = (0..16u32)
            .map(|i| Request::write_page(REL, i % 3, 1, u64::from(1 + round * 100 + i), &images[i as usize]))
            .collect();
        let sent = b.send_all(&requests);
        for r in sent {
            assert_eq!(b.end(r).errno, 0);
        }
        for block in 0..3 {
            let last = (0..16).rev().find(|i| i % 3 == block).unwrap();
            assert!(b.get(block) == faulty::page(block, 1 + round * 100 + last), "round {round} block {block}");
        }
    }
    assert!(bed.soon(|| bed.counter(RoleCounter::SentAgain) > 20));
}

#[test]
fn a_panic_of_the_service_hangs_nobody_and_stops_nothing() {
    let bed = Bed::new(Ingest::Immediate, Options::default());
    let mut b = bed.backend(0, 8);
    bed.service.panic.store(true, Ordering::SeqCst);
    let reader = b.send(&read(0, 0));
    assert_eq!(i32::from(b.end(reader).errno), libc::EIO);
    let image = faulty::page(1, 9);
    let write = Request::write_page(REL, 1, 1, 90, &image);
    assert_eq!(i32::from(b.ask(&write).errno), libc::ECANCELED);
    bed.service.panic.store(false, Ordering::SeqCst);
    assert_eq!((b.ask(&write).errno, b.ask(&read(0, 0)).errno), (0, 0));
    assert!(b.get(1) == faulty::page(1, 9));
}

#[test]
fn a_server_that_falls_back_is_noticed_and_old_reads_go_on() {
    let options = Options { stall_after: 100_000_000, ..Options::default() };
    let bed = Bed::new(lags(0), options);
    let mut b = bed.backend(0, 16);
    bed.service.ingest_to(1000);
    b.ask(&read(0, 1000));
    // Another process answers now, which is further back, and nobody says so.
    bed.service.ingest_to(300);
    let both = b.send_all(&[read(1, 200), read(2, 900)]);
    assert_eq!(b.end(both[0]).errno, 0, "does not wait for the other's WAL");
    assert!(!b.backend.poll(both[1]).unwrap());
    bed.service.reconnected(0, 1, 250);
    assert_eq!(b.ask(&read(3, 300)).errno, 0);
    bed.service.ingest_to(900);
    assert_eq!(b.end(both[1]).errno, 0);
}

#[test]
fn errors_of_one_request_are_not_those_of_its_neighbours() {
    let bed = Bed::new(Ingest::Immediate, Options::default());
    let mut b = bed.backend(0, 32);
    bed.service.hold_reads(true);
    let good: Vec<_> = (0..8).map(|i| b.send(&read(i, 0))).collect();
    // Blocks 0 to 31 exist.
    let bad = b.send(&Request::get_page(REL, 28, 8, 0));
    let hint = b.send(&Request::prefetch(REL, 30, 8, 0));
    let size = b.send(&Request::new(Opcode::RelSize, REL));
    let exists = b.send(&Request::new(Opcode::RelExists, REL));
    let at = b.send(&Request {
        request_lsn: Some(0),
        buffers: Buffers::Bounce,
        ..Request { count: 1, ..Request::new(Opcode::GetPageAt, REL) }
    });
    bed.service.hold_reads(false);
    let failed = b.end(bad);
    assert_eq!(
        (i32::from(failed.errno), { failed.value }),
        (libc::ENXIO, 4),
        "the fifth block is the first past the end"
    );
    assert!(good.into_iter().all(|r| b.end(r).errno == 0));
    assert_eq!(b.end(hint).errno, 0, "a hint");
    assert_eq!(({ b.end(size).value }, { b.end(exists).value }), (32, 1));
    assert_eq!(i32::from(b.end(at).errno), libc::EINVAL);
}

const CACHES: Sizes = Sizes { memory: 4 << 20, prefetched: 1 << 20 };

#[test]
fn a_page_that_was_written_is_read_back_before_its_wal_has_come() {
    let bed = Bed::with_cache(lags(0), Options::default(), CACHES);
    let mut b = bed.backend(0, 8);
    let image = faulty::page(3, 9);
    assert_eq!(b.ask(&Request::write_page(REL, 3, 1, 5000, &image)).errno, 0);
    let mut page = vec![0; image.len()];
    let done = b.backend.call(&read(3, 5000), &Wait::for_ms(20_000), &mut page).unwrap();
    assert!(done.errno == 0 && { done.lsn } == 5000 && page == image);
    assert_eq!((bed.service.asked(What::Page(REL, 3)), bed.counter(RoleCounter::CacheHits)), (0, 1));
    // A later change is not in it.
    let later = b.send(&read(3, 5001));
    assert!(bed.soon(|| bed.service.asked(What::Page(REL, 3)) == 1) && !b.backend.poll(later).unwrap());
    bed.service.ingest_to(5001);
    assert_eq!(b.end(later).errno, 0);
}

#[test]
fn a_vector_is_put_together_from_the_cache_and_the_service() {
    let bed = Bed::with_cache(Ingest::Immediate, Options::default(), CACHES);
    let mut b = bed.backend(0, 32);
    for block in [1, 4, 7] {
        assert!(b.get(block) == faulty::page(block, 0));
    }
    let r = b.send(&Request::get_page(REL, 0, 8, 0));
    b.backend.wait(r, &Wait::for_ms(20_000)).unwrap();
    for i in 0..8 {
        assert!(b.backend.page(r, i).unwrap() == faulty::page(i as u32, 0), "block {i}");
    }
    assert_eq!({ b.backend.finish(r).unwrap().value }, 8);
    assert!((0..8).all(|block| bed.service.asked(What::Page(REL, block)) == 1));
    assert_eq!((bed.counter(RoleCounter::CacheHits), bed.counter(RoleCounter::CacheMisses)), (3, 8));
}

#[test]
fn prefetched_pages_answer_the_reads_of_every_backend_once_asked_for() {
    for sizes in [CACHES, Sizes { memory: 0, ..CACHES }] {
        let bed = Bed::with_cache(Ingest::Immediate, Options::default(), sizes);
        let (mut a, mut b) = (bed.backend(0, 16), bed.backend(16, 32));
        assert_eq!(a.ask(&Request::prefetch(REL, 0, 8, 0)).errno, 0);
        assert_eq!(a.ask(&Request::prefetch(REL, 0, 8, 0)).errno, 0);
        for block in 0..8 {
            assert!(b.get(block) == faulty::page(block, 0));
            assert_eq!(bed.service.asked(What::Page(REL, block)), 1);
        }
        assert_eq!(bed.counter(RoleCounter::PrefetchHits), 8);
    }
}

#[test]
fn a_read_takes_over_the_prefetch_that_it_meets() {
    let bed = Bed::with_cache(Ingest::Immediate, Options::default(), CACHES);
    let mut b = bed.backend(0, 16);
    bed.service.hold_reads(true);
    let hint = b.send(&Request::prefetch(REL, 3, 1, 0));
    assert!(bed.soon(|| bed.service.asked(What::Page(REL, 3)) == 1));
    let reader = b.send(&read(3, 0));
    assert!(bed.soon(|| bed.counter(RoleCounter::Joined) == 1));
    bed.service.hold_reads(false);
    b.backend.wait(reader, &Wait::for_ms(20_000)).unwrap();
    assert!(b.backend.page(reader, 0).unwrap() == faulty::page(3, 0));
    assert_eq!((b.end(reader).errno, b.end(hint).errno), (0, 0));
    assert_eq!(bed.service.asked(What::Page(REL, 3)), 1);
}

#[test]
fn no_cached_page_outlives_a_change_of_its_relation_or_a_server_life() {
    let bed = Bed::with_cache(Ingest::Immediate, Options::default(), CACHES);
    let mut b = bed.backend(0, 40);
    for block in 0..32 {
        b.get(block);
    }
    let mut cut = Request::new(Opcode::Truncate, REL);
    (cut.block, cut.lsn) = (4, 10);
    assert_eq!(b.ask(&cut).errno, 0);
    assert_eq!(i32::from(b.ask(&read(9, 0)).errno), libc::ENXIO, "it was cached");
    let mut grow = Request::new(Opcode::ZeroExtend, REL);
    (grow.block, grow.arg, grow.lsn) = (4, 28, 20);
    assert_eq!(b.ask(&grow).errno, 0);
    assert!(b.get(9).iter().all(|byte| *byte == 0));
    assert!(b.get(2) == faulty::page(2, 0) && b.get(2) == faulty::page(2, 0));
    let before = bed.service.asked(What::Page(REL, 2));
    let life = &bed.parts().header.life.life;
    life.fetch_add(1, Ordering::SeqCst);
    drop(b);
    let mut b = bed.backend(0, 40);
    assert!(b.get(2) == faulty::page(2, 0));
    assert_eq!(bed.service.asked(What::Page(REL, 2)), before + 1, "asked anew in a new life");
}

#[test]
fn the_cache_file_answers_and_what_happens_to_it_costs_a_read_and_no_page() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache");
    let sizes = Sizes { memory: 8 * 8192, prefetched: 0 };
    let bed = Bed::over(Ingest::Immediate, Options::default(), Cache::with_file(sizes, &path, 4 << 20).unwrap());
    let mut b = bed.backend(0, 40);
    let asked = |bed: &Bed| (0..32).map(|block| bed.service.asked(What::Page(REL, block))).sum::<usize>();
    let mut round = |version: u32| {
        for block in 0..32 {
            let wanted = if block == 7 { version } else { 0 };
            assert!(b.get(block) == faulty::page(block, wanted), "block {block}");
        }
    };
    round(0);
    // Once all of it is in memory or in the file nothing is asked for.
    assert!(bed.soon(|| {
        let before = asked(&bed);
        round(0);
        asked(&bed) == before
    }));
    let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    assert!(file.metadata().unwrap().len() > 0);
    // A bit in each page, then half of the file.
    let before = asked(&bed);
    let damaged = bed.soon(|| {
        for frame in 0..file.metadata().unwrap().len() / 8192 {
            use std::os::unix::fs::FileExt;
            let mut byte = [0];
            file.read_exact_at(&mut byte, frame * 8192 + 4000).unwrap();
            file.write_all_at(&[byte[0] ^ 1], frame * 8192 + 4000).unwrap();
        }
        round(0);
        // Pages that were on their way to the file may have been written over the damage.
        asked(&bed) > before
    });
    assert!(damaged, "damaged pages are asked for");
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    round(0);
    let mut writer = bed.backend(40, 8);
    for version in 1..20 {
        let image = faulty::page(7, version);
        assert_eq!(writer.ask(&Request::write_page(REL, 7, 1, version.into(), &image)).errno, 0);
        round(version);
    }
}
