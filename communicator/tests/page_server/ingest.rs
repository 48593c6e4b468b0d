//! Ingest that is held back: what is hidden, who waits, and what must be seen all the same.

use crate::support::*;
use shmuring_communicator::service::Mutation;
use shmuring_communicator::wire::proto::page_api::GetPageStatusCode;
use std::collections::HashMap;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_stall_hides_what_is_newer_of_every_kind_and_its_end_shows_it() {
    let site = Site::new();
    let server = site.start(&[]);
    let mut writer = server.writer().await;
    let other = shmuring::request::RelTag { rel_number: 99, ..REL };
    writer.all(vec![create(10), extend(0, 20, 1), extend(1, 30, 1), extend(2, 40, 1)]).await;
    server.set("ingest_stall = on\n").await;
    // An image, a cut, a growth, a relation that comes and one that goes: all acknowledged.
    writer.all(vec![write(0, 50, 2), truncate(2, 60), zero_extend(2, 4, 70)]).await;
    assert_eq!((server.version(0, LATEST, 20).await, server.version(2, LATEST, 40).await), (Ok(Some(1)), Ok(Some(1))));
    assert_eq!(server.size(LATEST, 40).await.unwrap(), Some(3));
    writer.all(vec![Mutation::Unlink { rel: REL, lsn: 80 }, Mutation::Create { rel: other, lsn: 90 }]).await;
    assert_eq!(server.size(LATEST, 40).await.unwrap(), Some(3));
    assert_eq!(server.ingested().await.last_record_lsn, 40);
    let mut stream = server.stream().await;
    stream.ask(other, &[0], LATEST, 40).await;
    assert_eq!(version(&stream.answer().await), Err(GetPageStatusCode::NotFound));
    // A read that needs one of them waits, and those of others go on.
    stream.ask(other, &[0], LATEST, 90).await;
    for _ in 0..20 {
        assert_eq!(server.version(1, LATEST, 30).await, Ok(Some(1)));
    }
    assert!(!stream.has_answer(Duration::from_millis(30)).await);
    server.set("").await;
    assert_eq!(version(&stream.answer().await), Ok(None));
    assert_eq!(server.size(LATEST, 80).await.unwrap(), None);
    for (at, size, block_2) in [(59, 3, Ok(Some(1))), (60, 2, Ok(None)), (70, 6, Ok(None))] {
        assert_eq!((server.size(at, at).await.unwrap(), server.version(2, at, at).await), (Some(size), block_2));
    }
}

#[tokio::test]
async fn ready_reads_are_answered_while_future_ones_wait_on_another_stream() {
    let site = Site::new();
    let server = site.start(&["--ingest-stall"]);
    let mut writer = server.writer().await;
    writer.all(vec![create(0), extend(0, 0, 1), extend(1, 500, 1)]).await;
    let (mut ready, mut future) = (server.stream().await, server.stream().await);
    let first = future.ask(REL, &[1], LATEST, 500).await;
    let behind = future.ask(REL, &[0], LATEST, 1).await;
    for _ in 0..50 {
        ready.ask(REL, &[0], LATEST, 1).await;
        assert_eq!(version(&ready.answer().await), Ok(Some(1)));
    }
    assert!(!future.has_answer(Duration::from_millis(30)).await);
    server.set("ingest_stall = off\n").await;
    for id in [first, behind] {
        let answer = future.answer().await;
        assert_eq!((answer.request_id.unwrap().id, version(&answer)), (id, Ok(Some(1))));
    }
}

#[tokio::test]
async fn a_lag_in_time_shows_what_came_when_it_has_passed_and_not_before() {
    let site = Site::new();
    let server = site.start(&["--ingest-lag-ms", "300"]);
    let mut writer = server.writer().await;
    let begin = Instant::now();
    writer.all(vec![create(10), extend(0, 20, 1)]).await;
    assert_eq!(server.version(0, LATEST, 20).await, Ok(Some(1)));
    assert!(begin.elapsed() >= Duration::from_millis(300), "{:?}", begin.elapsed());
    // Less from now on.
    writer.all(vec![write(0, 30, 2)]).await;
    server.set("ingest_lag_ms = 0\n").await;
    assert_eq!(server.version(0, LATEST, 1).await, Ok(Some(2)));
}

#[tokio::test]
async fn a_lag_in_bytes_keeps_ingest_so_far_behind() {
    let site = Site::new();
    let server = site.start(&["--ingest-lag-bytes", "100"]);
    let mut writer = server.writer().await;
    writer.all(vec![create(10), extend(0, 20, 1), write(0, 150, 2)]).await;
    assert_eq!((server.version(0, LATEST, 20).await, server.ingested().await.last_record_lsn), (Ok(Some(1)), 50));
    let mut stream = server.stream().await;
    stream.ask(REL, &[0], LATEST, 150).await;
    assert!(!stream.has_answer(Duration::from_millis(30)).await);
    writer.written(250).await;
    assert_eq!(version(&stream.answer().await), Ok(Some(2)));
}

#[tokio::test]
async fn a_restart_begins_at_an_older_lsn_and_ingests_the_rest_again() {
    let site = Site::new();
    let server = site.start(&["--checkpoint-every", "0"]);
    let mut writer = server.writer().await;
    writer.all(vec![create(10), extend(0, 20, 1)]).await;
    writer.sync().await;
    writer.all(vec![write(0, 30, 2)]).await;
    assert_eq!(server.version(0, LATEST, 30).await, Ok(Some(2)));
    server.kill_9();
    // It begins at what was made durable, and what it had beyond is held back anew.
    site.settings("ingest_stall = on\n");
    let server = site.start(&[]);
    let word = server.ingested().await;
    assert_eq!((word.last_record_lsn, word.disk_consistent_lsn), (20, 20));
    assert_eq!(server.version(0, LATEST, 20).await, Ok(Some(1)));
    let mut stream = server.stream().await;
    stream.ask(REL, &[0], LATEST, 30).await;
    assert!(!stream.has_answer(Duration::from_millis(30)).await);
    server.set("").await;
    assert_eq!(version(&stream.answer().await), Ok(Some(2)));
    assert_eq!(server.drain().await, Some(0));
    // Older by choice.
    site.settings("ingest_stall = on\n");
    let server = site.start(&["--begin-at", "0/F"]);
    assert_eq!((server.ingested().await.last_record_lsn, server.size(LATEST, 10).await.unwrap()), (15, Some(0)));
    server.set("").await;
    assert_eq!(server.version(0, LATEST, 30).await, Ok(Some(2)));
}

#[tokio::test]
async fn settings_that_make_no_sense_change_nothing() {
    let site = Site::new();
    site.settings("frog = 1\n");
    assert!(site.try_start(&[]).err().unwrap().contains("no setting 'frog'"));
    site.settings("ingest_stall = on\n");
    let server = site.start(&[]);
    let mut writer = server.writer().await;
    writer.all(vec![create(10)]).await;
    server.set("ingest_stall = maybe\n").await;
    assert!(server.log().contains("'maybe' is not on or off"), "{}", server.log());
    assert_eq!(server.ingested().await.last_record_lsn, 1);
}

/// xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % n
    }
}

/// The truth, and what a reader knows of it.
#[derive(Default)]
struct Model {
    /// Blocks' versions; `None`: zeros.
    blocks: Vec<Option<u32>>,
    /// Highest LSN that was noted of a block, and of the relation.
    noted: HashMap<u32, u64>,
    relation: u64,
    /// LSN of the image in a block: the next one is not older.
    image: HashMap<u32, u64>,
    versions: u32,
}

impl Model {
    /// A random mutation, with an LSN that has nothing to do with the order.
    fn next(&mut self, random: &mut Random) -> Mutation {
        let lsn = if random.below(6) == 0 { 0 } else { 1 + random.below(1000) };
        let size = self.blocks.len() as u32;
        self.versions += 1;
        let version = self.versions;
        match random.below(10) {
            0 if size > 4 => {
                let left = size - 1 - random.below(3) as u32;
                self.blocks.truncate(left as usize);
                self.image.retain(|b, _| *b < left);
                self.relation = self.relation.max(lsn);
                truncate(left, lsn)
            }
            1..=2 => {
                let count = 1 + random.below(3) as u32;
                self.blocks.extend(vec![None; count as usize]);
                (size..size + count).for_each(|b| self.note(b, lsn));
                self.relation = self.relation.max(lsn);
                zero_extend(size, count, lsn)
            }
            3..=4 => {
                self.blocks.push(Some(version));
                self.note(size, lsn);
                self.image.insert(size, lsn);
                self.relation = self.relation.max(lsn);
                extend(size, lsn, version)
            }
            _ if size == 0 => {
                self.blocks.push(None);
                self.note(0, lsn);
                self.relation = self.relation.max(lsn);
                zero_extend(0, 1, lsn)
            }
            _ => {
                let block = random.below(size.into()) as u32;
                let before = self.image.get(&block).copied().unwrap_or(0);
                let lsn = if lsn == 0 { 0 } else { lsn.max(before) };
                self.blocks[block as usize] = Some(version);
                self.note(block, lsn);
                self.image.insert(block, before.max(lsn));
                write(block, lsn, version)
            }
        }
    }

    fn note(&mut self, block: u32, lsn: u64) {
        let noted = self.noted.entry(block).or_default();
        *noted = lsn.max(*noted);
    }
}

/// Whoever claims no more than it knows sees the truth, or waits: however far ingest is behind, and in whatever order
/// mutations take their LSNs.
#[tokio::test]
async fn no_reader_that_tells_the_truth_sees_what_is_old() {
    for seed in 1..=3_u64 {
        let site = Site::new();
        site.settings("ingest_lag_bytes = 400\n");
        let mut server = site.start(&["--checkpoint-every", "0"]);
        let mut writer = server.writer().await;
        let (mut model, mut random) = (Model::default(), Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        writer.all(vec![create(1 + random.below(300))]).await;
        let (mut seen, mut hidden, mut short_of) = (0, 0, 0);
        for step in 0..60 {
            writer.all(vec![model.next(&mut random)]).await;
            if step % 20 == 19 {
                // It has no more than was synced, at best; what it had to show it still has.
                server.kill_9();
                server = site.start(&["--checkpoint-every", "0"]);
                writer = server.writer().await;
            }
            let at = server.ingested().await.last_record_lsn;
            let mut stream = server.stream().await;
            let ready: Vec<u32> = (0..model.blocks.len() as u32).filter(|b| model.noted[b] <= at).collect();
            hidden += model.blocks.len() - ready.len();
            for some in ready.chunks(8) {
                for block in some {
                    let n = model.noted[block].max(1);
                    stream.ask(REL, &[*block], LATEST, n).await;
                    // As of what the reader knows it is not always there: that is what the server must make up for.
                    stream.ask(REL, &[*block], n, n).await;
                }
                for block in some {
                    let found = version(&stream.answer().await);
                    assert_eq!(
                        found,
                        Ok(model.blocks[*block as usize]),
                        "seed {seed} step {step} block {block} at {at}"
                    );
                    seen += 1;
                    short_of += usize::from(version(&stream.answer().await) != found);
                }
            }
            if model.relation <= at {
                let size = server.size(LATEST, model.relation.max(1)).await.unwrap();
                assert_eq!(size, Some(model.blocks.len() as u32), "seed {seed} step {step} at {at}");
            }
        }
        assert!(seen > 100 && short_of > 0, "seed {seed}: {seen} reads, {hidden} would wait, {short_of} too early");
        server.set("").await;
        for (block, version) in (0..).zip(&model.blocks) {
            assert_eq!(server.version(block, LATEST, model.noted[&block].max(1)).await, Ok(*version));
        }
    }
}
