//! Answers that are none, or another question's: an error of those reads that asked, and of no others.

use crate::support::{array, block, bytes, open, page, pages, read, Act, Client, Fake, Question, REL};
use shmuring_communicator::service::{PageService, ReadLsn, Retry, Value, What};

/// A service whose server does so with these questions, and else is a good one.
fn client(question: Question, act: impl Fn(&[i64]) -> Act + Send + 'static) -> (Fake, Client) {
    let server = Fake::new();
    server.hook(move |q, numbers| if q == question { act(numbers) } else { Act::Answer });
    let client = open(&server.conninfo()).unwrap();
    (server, client)
}

fn row(bytes: Vec<u8>) -> Act {
    Act::Row(vec![Some(bytes)])
}

#[test]
fn a_standby_that_keeps_the_rules_is_read_in_one_question_for_each_kind() {
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let server = Fake::new();
    let seen = asked.clone();
    server.hook(move |q, numbers| {
        if matches!(q, Question::Pages | Question::Sizes) {
            seen.lock().unwrap().push((q, numbers.to_vec()));
        }
        Act::Answer
    });
    let c = open(&server.conninfo()).unwrap();
    let reads = vec![block(7), read(What::RelSize(REL), 1), block(9), read(What::DbSize(5), 1)];
    let answers: Vec<_> = c.ask(0, reads).into_iter().map(Result::unwrap).collect();
    assert_eq!((answers[0].lsn, bytes(answers[0].clone()), bytes(answers[2].clone())), (1000, page(7), page(9)));
    assert!(matches!(answers[1].value, Value::RelSize(Some(100))));
    assert!(matches!(answers[3].value, Value::DbSize(12345)));
    let mut asked = asked.lock().unwrap().clone();
    asked.sort_by_key(|(q, _)| *q != Question::Pages);
    assert_eq!(asked, [(Question::Pages, vec![7, 9]), (Question::Sizes, vec![0])]);
}

#[test]
fn pages_of_another_length_are_an_error_of_those_who_asked() {
    let wrong: [fn(&[i64]) -> Act; 8] = [
        |_| row(Vec::new()),
        |b| row(pages(1000, true, b, true)[..100].to_vec()),
        |b| row(pages(1000, true, b, false)),
        |b| row([pages(1000, true, b, true), vec![0]].concat()),
        |_| row(pages(1000, true, &[7, 8], true)),
        |_| row(pages(1000, true, &[], true)),
        |_| Act::Row(vec![None]),
        |b| row([&pages(1000, true, b, true)[..16], &[0xFF; 20 + 8192]].concat()),
    ];
    for (i, act) in wrong.into_iter().enumerate() {
        let (server, c) = client(Question::Pages, act);
        let e = c.get(7).unwrap_err();
        // Neither may it be taken for a page that is not there, nor be waited for.
        assert!(e.retry != Retry::NotYet && ![libc::ENOENT, libc::ENXIO].contains(&e.errno), "{i}: {e}");
        assert_eq!(e.block, Some(7), "{i}: {e}");
        assert!(matches!(
            c.ask(0, vec![read(What::RelSize(REL), 1)]).remove(0).unwrap().value,
            Value::RelSize(Some(100))
        ));
        server.state().hook = None;
        c.goes_on();
    }
}

#[test]
fn sizes_for_other_forks_are_an_error() {
    let wrong: [fn(&[i64]) -> Act; 5] = [
        |_| row(array(&[])),
        |_| row(array(&[1, 2])),
        |_| row(array(&[1])[..20].to_vec()),
        |_| row(b"frog".to_vec()),
        |_| row(Vec::new()),
    ];
    for (i, act) in wrong.into_iter().enumerate() {
        let (_server, c) = client(Question::Sizes, act);
        let e = c.ask(0, vec![read(What::RelSize(REL), 1)]).remove(0).unwrap_err();
        assert!(e.retry != Retry::NotYet && e.errno != libc::ENOENT, "{i}: {e}");
        c.goes_on();
    }
    // Null says that replay is not there yet; what is no number of blocks, that there is no fork.
    let (_server, c) = client(Question::Sizes, |_| Act::Row(vec![None]));
    assert_eq!(c.ask(0, vec![read(What::RelSize(REL), 1)]).remove(0).unwrap_err().retry, Retry::NotYet);
    for n in [-1, i64::MIN, 1 << 32, i64::MAX] {
        let (_server, c) = client(Question::Sizes, move |_| row(array(&[n])));
        let answer = c.ask(0, vec![read(What::RelSize(REL), 1)]).remove(0).unwrap();
        assert!(matches!(answer.value, Value::RelSize(None)), "{n}");
    }
}

#[test]
fn a_database_of_less_than_no_bytes_does_not_exist() {
    let lsns = ReadLsn { request_lsn: None, not_modified_since: 1 };
    for wrong in [Some((-1i64).to_be_bytes().to_vec()), None] {
        let (_server, c) = client(Question::DbSize, move |_| Act::Row(vec![wrong.clone()]));
        let e = c.runtime.block_on(c.service.db_size(5, lsns)).unwrap_err();
        assert_eq!(e.errno, libc::ENOENT, "{e}");
    }
    let (_server, c) = client(Question::DbSize, |_| row(vec![1, 2, 3]));
    let e = c.runtime.block_on(c.service.db_size(5, lsns)).unwrap_err();
    assert!(e.errno != libc::ENOENT, "{e}");
    c.goes_on();
}

#[test]
fn pages_of_a_server_that_was_promoted_are_not_taken() {
    let (_server, c) = client(Question::Pages, |b| row(pages(1000, false, b, true)));
    let e = c.get(7).unwrap_err();
    assert_eq!((e.errno, e.block), (libc::EPROTO, Some(7)));
    assert!(e.detail.contains("was promoted"), "{e}");
}

#[test]
fn errors_of_the_server_are_told_with_their_sqlstate_and_whether_to_try_again() {
    let wanted = [
        ("57P01", libc::ECONNREFUSED, Retry::Reconnect),
        ("42501", libc::EACCES, Retry::Never),
        ("42883", libc::ENOSYS, Retry::Never),
        ("XX001", libc::EBADMSG, Retry::Later),
        ("40001", libc::EIO, Retry::Later),
        ("53300", libc::EIO, Retry::Later),
        ("58P01", libc::ENOSYS, Retry::Never),
    ];
    for (sqlstate, errno, retry) in wanted {
        let (server, c) = client(Question::Pages, move |_| Act::Error(sqlstate));
        let e = c.get(7).unwrap_err();
        assert_eq!((e.errno, e.retry, e.block), (errno, retry, Some(7)), "{e}");
        assert!(e.detail.contains(sqlstate) && e.detail.contains("as it was told"), "{e}");
        server.state().hook = None;
        c.goes_on();
    }
}
