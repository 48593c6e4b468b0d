//! Failures, lost connections, stalls, deadlines, cancels.

use super::support::*;
use shmuring::lsn::scheduler::{Event, Kind, Options, Outcome, Refused, Request, Waiting};

#[test]
fn failures_are_retried_with_backoff_and_given_up_at_the_budget() {
    let mut b = Bed::proved(Options { failures: 3, ..Options::default() }, 100);
    b.submit(&read(1, 1, 50));
    for (attempt, pause) in [5, 10, 20].into_iter().enumerate() {
        let batch = b.next().unwrap();
        assert_eq!(batch.members[0].attempt, attempt as u32);
        b.outcome(&batch, Outcome::Failed);
        b.pass((pause - 1) * MS);
        assert!(b.next().is_none(), "backs off for {pause} ms");
        b.pass(MS);
    }
    let last = b.next().unwrap();
    b.told();
    b.outcome(&last, Outcome::Lost);
    assert_eq!(b.told(), [Event::GaveUp { id: 1, part: 0, attempts: 4 }]);
    assert!(b.s.is_empty());
}

#[test]
fn waiting_for_wal_is_not_failing() {
    let mut b = Bed::proved(Options { failures: 1, ..Options::default() }, 100);
    b.submit(&read(1, 1, 500));
    for _ in 0..50 {
        let batch = b.next().expect("sent again at once, to be the canary");
        b.outcome(&batch, Outcome::LsnTimeout);
    }
    assert_eq!((b.s.stats().failures, b.s.stats().lsn_timeouts), (0, 50));
    let batch = b.next().unwrap();
    b.told();
    b.answer(&batch);
    assert_eq!(b.told(), [Event::Answered { id: 1, part: 0, attempts: 51 }]);
}

#[test]
fn a_lasting_error_is_told_to_everybody_and_proves_nothing() {
    let mut b = Bed::at(100);
    b.submit(&read(1, 1, 500));
    b.submit(&read(2, 1, 500));
    let batch = b.next().unwrap();
    b.told();
    b.outcome(&batch, Outcome::Refused);
    assert_eq!(b.told().len(), 2);
    assert_eq!(b.mark().proved(), 100);
}

#[test]
fn a_new_connection_parks_what_is_not_known_to_be_there() {
    let mut b = Bed::at(1000);
    b.submit(&read(1, 1, 900));
    b.submit(&read(2, 2, 400));
    let sent = b.next().unwrap();
    b.submit(&read(3, 3, 950));
    b.s.reconnected(0, 1, 500, b.now, &mut b.events);
    assert!(!b.one(&sent.members[0], Outcome::Answered), "an answer of the connection before");
    assert_eq!(b.mark().proved(), 0);
    let again = b.all();
    let n: Vec<u64> = again.iter().map(|x| x.n).collect();
    assert_eq!(n, [400, 900], "a canary each; no storm: 950 waits");
    assert!(again.iter().all(|x| x.kind == Kind::Future && x.generation == 1));
    b.answer(&again[1]);
    assert_eq!(b.all()[0].n, 950);
}

#[test]
fn a_ready_batch_that_stalls_is_sent_again_one_by_one() {
    let mut b = Bed::at(1000);
    for id in 1..=3 {
        b.submit(&read(id, id as u32, id * 100));
    }
    let stalled = b.next().unwrap();
    b.pass(1999 * MS);
    b.told();
    b.pass(2 * MS);
    let told = b.told();
    assert!(
        told.contains(&Event::Stalled { shard: 0, n: 300 }) && told.contains(&Event::Recall(stalled.id)),
        "{told:?}"
    );
    assert!(!b.one(&stalled.members[0], Outcome::Answered), "too late");
    let mut alone = b.all();
    alone.sort_by_key(|x| x.n);
    assert!(alone.iter().all(|x| x.members.len() == 1 && x.kind == Kind::Future));
    b.answer(&alone[0]);
    assert_eq!(b.mark().proved(), 100);
    assert_eq!(b.answered(), [1]);
}

#[test]
fn a_ready_batch_that_gets_on_slowly_has_not_stalled() {
    let mut b = Bed::at(1000);
    for id in 1..=3 {
        b.submit(&read(id, id as u32, id * 100));
    }
    let slow = b.next().unwrap();
    b.pass(1500 * MS);
    b.one(&slow.members[2], Outcome::Answered);
    b.pass(1500 * MS);
    assert_eq!((b.s.stats().stalls, b.mark().proved()), (0, 1000), "an answer came");
    b.pass(1000 * MS);
    assert_eq!(b.s.stats().stalls, 0, "less than 2 s ago");
    b.told();
    b.pass(1000 * MS);
    assert!(b.told().contains(&Event::Stalled { shard: 0, n: 200 }), "by the largest of those without an answer");
    assert_eq!(b.mark().proved(), 0);
}

#[test]
fn deadlines_are_kept_and_say_what_was_waited_for() {
    let mut b = Bed::at(100);
    let deadline = Some(b.now + 50 * MS);
    b.submit(&Request { deadline, ..read(1, 1, 900) });
    b.submit(&Request { deadline: Some(b.now + 3_600_000 * MS), ..read(2, 1, 900) });
    b.submit(&Request { deadline, ..read(3, 3, 50) });
    let sent = b.all();
    b.told();
    b.pass(49 * MS);
    assert_eq!(b.told(), []);
    b.pass(6 * MS);
    let mut told = b.told();
    told.sort_by_key(|e| if let Event::Expired { id, .. } = e { *id } else { 0 });
    let waiting = Some(Waiting { n: 900, shard: 0, proved: 100, hint: 100 });
    let expired = |id, waiting| Event::Expired { id, part: 0, waiting };
    assert_eq!(told, [expired(1, waiting), expired(3, None)]);
    assert_eq!((b.s.stats().expired, b.s.stats().expired_waiting), (2, 1));
    b.answer(sent.iter().find(|x| x.n == 900).unwrap());
    assert_eq!(b.answered(), [2], "who waits longer is answered");
    b.answer(sent.iter().find(|x| x.n == 50).unwrap());
    assert_eq!(b.answered(), [0; 0], "nobody waits for it any more");
    assert!(b.s.is_empty());
    let late = b.s.submit(&Request { deadline, ..read(9, 9, 1) }, b.now, &mut b.events);
    assert_eq!(late, Err(Refused::Expired));
}

#[test]
fn deadlines_far_apart_are_kept_too() {
    let mut b = Bed::at(100);
    let hours = [1_u64, 5_000, 3_600_000, 7_200_123];
    for (id, ms) in hours.iter().enumerate() {
        b.submit(&Request { deadline: Some(b.now + ms * MS), ..read(id as u64, id as u32, 900) });
    }
    let begin = b.now;
    for (id, ms) in hours.iter().enumerate() {
        b.now = begin + ms * MS - 1;
        b.s.tick(b.now, &mut b.events);
        assert_eq!(b.told(), [], "{ms} ms are not over");
        b.pass(5 * MS);
        assert!(matches!(b.told()[..], [Event::Expired { id: e, .. }] if e == id as u64));
    }
}

#[test]
fn a_cancelled_request_leaves_and_others_go_on() {
    let mut b = Bed::at(100);
    let first = b.submit(&Request { count: 3, ..read(1, 0, 50) });
    b.submit(&read(2, 1, 50));
    assert!(b.s.cancel(first, b.now, &mut b.events));
    assert!(!b.s.cancel(first, b.now, &mut b.events), "once");
    let batch = b.next().unwrap();
    assert_eq!(batch.members.len(), 1, "the block that another wants");
    b.told();
    b.answer(&batch);
    assert_eq!(b.answered(), [2]);
    assert!(b.s.is_empty());
}

#[test]
fn an_answer_is_taken_once() {
    let mut b = Bed::at(100);
    b.submit(&read(1, 1, 50));
    let batch = b.next().unwrap();
    assert!(b.one(&batch.members[0], Outcome::Answered));
    assert!(!b.one(&batch.members[0], Outcome::Answered));
    b.submit(&read(2, 2, 50));
    let other = b.next().unwrap();
    assert!(!b.one(&batch.members[0], Outcome::Answered), "a new batch has another name");
    assert!(b.one(&other.members[0], Outcome::Answered));
}

#[test]
fn time_that_ready_reads_did_not_wait_is_measured() {
    let mut b = Bed::at(100);
    b.submit(&read(1, 1, 900));
    b.submit(&read(2, 2, 50));
    let sent = b.all();
    b.answer(&sent[0]);
    b.now += 500 * MS;
    b.answer(&sent[1]);
    assert_eq!(b.s.stats().hol_avoided_ns, 500 * MS);
    assert_eq!(b.s.stats().waited_ns, 500 * MS);
}
