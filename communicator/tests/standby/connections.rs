//! Standbys that cannot be reached, say nothing, break off, are others than before.

use crate::support::{block, open, page, soon, Act, Fake, Question, Reports, Told};
use shmuring_communicator::service::{PageService, Retry, ServiceError};
use std::time::{Duration, Instant};

fn refused(conninfo: &str) -> ServiceError {
    open(conninfo).err().expect("it opens")
}

#[test]
fn a_server_that_is_not_there_is_an_error_that_names_it_and_no_relation() {
    let dir = tempfile::tempdir().unwrap();
    let e = refused(&format!("host={} user=u dbname=d", dir.path().display()));
    assert_eq!((e.errno, e.retry), (libc::ECONNREFUSED, Retry::Reconnect), "{e}");
    assert!(e.detail.contains(dir.path().to_str().unwrap()), "{e}");
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    drop(socket);
    let e = refused(&format!("host=127.0.0.1 port={port} user=u dbname=d password=secret"));
    assert_eq!((e.errno, e.retry), (libc::ECONNREFUSED, Retry::Reconnect), "{e}");
    assert!(e.detail.contains(&format!("port={port}")) && !e.detail.contains("secret"), "{e}");
}

#[test]
fn servers_that_cannot_serve_are_named_errors() {
    let server = Fake::new();
    let words = |server: &Fake, errno, words: &str| {
        let e = refused(&server.conninfo());
        assert!(e.errno == errno && e.detail.contains(words) && e.detail.contains("port="), "{e}");
    };
    server.state().in_recovery = false;
    words(&server, libc::EPROTO, "no standby");
    server.state().in_recovery = true;
    server.state().block_size = "16384";
    words(&server, libc::EPROTONOSUPPORT, "pages of 16384 bytes");
    server.state().block_size = "8192";
    for (sqlstate, errno) in [("57P03", libc::ECONNREFUSED), ("28P01", libc::EACCES), ("3D000", libc::ECONNREFUSED)] {
        server.state().refuses = Some(sqlstate);
        words(&server, errno, sqlstate);
    }
    server.state().refuses = None;
    let acts: [fn() -> Act; 4] =
        [|| Act::Noise, || Act::HalfAndEnd, || Act::Row(vec![None; 6]), || Act::Row(vec![Some(vec![1]); 6])];
    for act in acts {
        server.hook(move |q, _| if q == Question::Who { act() } else { Act::Answer });
        let e = refused(&server.conninfo());
        assert_eq!(e.retry, Retry::Reconnect, "{e}");
    }
}

#[test]
fn a_server_that_accepts_and_never_answers_is_given_up_in_time() {
    // The kernel accepts for it.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let e = refused(&format!("host=127.0.0.1 port={port} user=u dbname=d connect_timeout=1"));
    assert_eq!((e.errno, e.retry), (libc::ETIMEDOUT, Retry::Reconnect), "{e}");
}

/// Asks for block 7, which the server breaks off; the error, and whether the next reads are good.
fn broken_off(act: fn() -> Act) -> ServiceError {
    let server = Fake::new();
    server.hook(move |q, blocks| if q == Question::Pages && blocks == [7] { act() } else { Act::Answer });
    let c = open(&server.conninfo()).unwrap();
    let e = c.get(7).unwrap_err();
    assert_eq!((e.retry, e.block), (Retry::Reconnect, Some(7)), "{e}");
    assert!(![libc::ENOENT, libc::ENXIO].contains(&e.errno), "{e}");
    // By other connections at once, and by as many as before when they have been made anew.
    for n in 8..40 {
        soon(|| c.get(n).is_ok_and(|p| p == page(n.into())));
    }
    e
}

#[test]
fn an_answer_that_breaks_off_fails_the_reads_that_wait_for_it_and_no_more() {
    assert_ne!(broken_off(|| Act::HalfAndEnd).errno, libc::ETIMEDOUT);
}

#[test]
fn what_is_no_message_ends_the_connection_and_no_more() {
    assert_ne!(broken_off(|| Act::Noise).errno, libc::ETIMEDOUT);
}

#[test]
fn a_question_that_is_never_answered_is_given_up_in_time_and_the_next_is_asked_elsewhere() {
    let begin = Instant::now();
    let e = broken_off(|| Act::Nothing);
    assert_eq!(e.errno, libc::ETIMEDOUT);
    assert!(begin.elapsed() >= Duration::from_secs(5), "given up after {:?}", begin.elapsed());
}

#[test]
fn a_server_that_was_started_anew_proves_nothing_by_what_the_old_one_had_replayed() {
    let server = Fake::new();
    let c = open(&server.conninfo()).unwrap();
    assert_eq!(c.get(7).unwrap(), page(7));
    let reports = Reports::of(&c);
    {
        let mut state = server.state();
        (state.started, state.replayed) = ("2000-01-02", 600);
    }
    server.cut();
    reports.wait_for(&Told::Reconnected(1, 600));
    // What was meant for the old one is sent back.
    let e = c.ask(0, vec![block(7)]).remove(0).unwrap_err();
    assert_eq!(e.retry, Retry::Reconnect, "{e}");
    soon(|| c.ask(1, vec![block(7)]).remove(0).is_ok_and(|answer| answer.lsn == 600));
}

#[test]
fn the_same_server_behind_new_connections_keeps_its_word() {
    let server = Fake::new();
    let c = open(&server.conninfo()).unwrap();
    let reports = Reports::of(&c);
    reports.wait_for(&Told::Ingested(1000));
    for replayed in [1001, 1002, 1003] {
        server.state().replayed = replayed;
        server.cut();
        reports.wait_for(&Told::Ingested(replayed));
        // Of the first generation.
        c.goes_on();
    }
}

#[test]
fn another_cluster_at_the_same_place_is_not_read() {
    let server = Fake::new();
    let c = open(&server.conninfo()).unwrap();
    server.state().system = "78";
    server.cut();
    soon(|| c.get(7).is_err_and(|e| e.detail.contains("another cluster answers")));
    server.state().system = "77";
    c.goes_on();
    let fence = c.runtime.block_on(c.service.fence(1, 1));
    assert_eq!(fence, Ok(()));
}
