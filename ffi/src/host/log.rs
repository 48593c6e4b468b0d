//! Lines of the log on their way to the embedder, who may only log from a thread of its own.
//!
//! What the communicator's threads say through `tracing` ends in a queue of bounded length, from which the embedder
//! takes it, or in a callback. Nothing here is global: each thread of a host says it into that host's [`Log`], so two
//! hosts in a process do not mix, nor does a host with what else logs there.

use core::fmt::Write as _;
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use shmuring::error::Error;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::place::copy_text;
use super::record::{ApiLogRecord, Wanted, DEBUG, ERROR, INFO, TARGET, TEXT, WARN};

/// Lines that wait; of more the newest are lost.
const CAPACITY: usize = 1024;
/// A line that waits.
struct Line {
    level: u32,
    dropped: u64,
    when: u64,
    target: &'static str,
    text: String,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Line>,
    /// Lost since the last line that was not.
    dropped: u64,
}

/// The log of one host.
pub(super) struct Log {
    wanted: Wanted,
    queue: Mutex<Queue>,
    /// Whether the embedder's function may be called no more; held for reading during each call.
    closed: RwLock<bool>,
    /// An eventfd that is readable while the queue is not empty.
    fd: OwnedFd,
}

impl Log {
    pub(super) fn new(wanted: Wanted) -> Result<Self, Error> {
        // SAFETY: a system call on numbers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(Error::Os(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EMFILE)));
        }
        // SAFETY: a descriptor that the kernel has just given to us alone.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { wanted, queue: Mutex::default(), closed: RwLock::default(), fd })
    }

    /// The descriptor that is readable while lines wait.
    pub(super) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// A subscriber that says everything into this log.
    pub(super) fn dispatch(self: &Arc<Self>) -> tracing::Dispatch {
        tracing::Dispatch::new(Sink(self.clone()))
    }

    /// Takes the oldest line.
    pub(super) fn next(&self) -> Option<ApiLogRecord> {
        let mut queue = self.lock();
        let line = queue.lines.pop_front();
        if queue.lines.is_empty() {
            let mut count = 0u64;
            // SAFETY: a buffer of the eight bytes that an eventfd gives. EAGAIN: there was nothing to take.
            unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut count).cast(), 8) };
        }
        drop(queue);
        line.map(|line| line.record())
    }

    /// After this the embedder's function is called no more, by threads that do not end either; waits for calls of it.
    pub(super) fn close(&self) {
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    fn say(&self, level: Level, target: &'static str, text: String) {
        let when = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let mut line = Line { level: number(level), dropped: 0, when, target, text };
        if let Some(callback) = self.wanted.callback {
            let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
            if !*closed {
                // SAFETY: the embedder's function, as it has promised it to be; the record lives until it returns.
                unsafe { callback(self.wanted.user, &line.record()) };
            }
            return;
        }
        let mut queue = self.lock();
        if queue.lines.len() >= CAPACITY {
            queue.dropped = queue.dropped.saturating_add(1);
            return;
        }
        line.dropped = core::mem::take(&mut queue.dropped);
        queue.lines.push_back(line);
        if queue.lines.len() == 1 {
            let one = 1u64;
            // SAFETY: eight bytes, as an eventfd takes them.
            unsafe { libc::write(self.fd.as_raw_fd(), (&raw const one).cast(), 8) };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn record(&self) -> ApiLogRecord {
        let mut record = ApiLogRecord {
            level: self.level,
            reserved: 0,
            dropped: self.dropped,
            when: self.when,
            target: [0; TARGET],
            text: [0; TEXT],
        };
        copy_text(&mut record.target, self.target);
        copy_text(&mut record.text, &self.text);
        record
    }
}

/// What is finer than debug is debug.
fn number(level: Level) -> u32 {
    match level {
        Level::ERROR => ERROR,
        Level::WARN => WARN,
        Level::INFO => INFO,
        _ => DEBUG,
    }
}

/// What the threads of a host log into.
struct Sink(Arc<Log>);

impl Subscriber for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() != Level::TRACE && number(*metadata.level()) <= self.0.wanted.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.0.wanted.level {
            ERROR => LevelFilter::ERROR,
            WARN => LevelFilter::WARN,
            INFO => LevelFilter::INFO,
            _ => LevelFilter::DEBUG,
        })
    }

    fn event(&self, event: &Event<'_>) {
        let mut words = Words::default();
        event.record(&mut words);
        self.0.say(*event.metadata().level(), event.metadata().target(), words.message + &words.fields);
    }

    // Lines carry all that they say: spans are not kept.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// An event as text: its message, then `field=value` for each field.
#[derive(Default)]
struct Words {
    message: String,
    fields: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn core::fmt::Debug) {
        // Writing to a String does not fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ffi::c_void;
    use std::ffi::CStr;

    fn log(level: u32) -> Arc<Log> {
        let log = Log::new(Wanted { level, callback: None, user: core::ptr::null_mut() });
        Arc::new(log.unwrap_or_else(|e| unreachable!("{e}")))
    }

    fn text(record: &ApiLogRecord) -> String {
        // SAFETY: always ends with a zero.
        unsafe { CStr::from_ptr(record.text.as_ptr()) }.to_string_lossy().into_owned()
    }

    fn is_readable(log: &Log) -> bool {
        let mut poll = libc::pollfd { fd: log.fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor that is open.
        unsafe { libc::poll(&mut poll, 1, 0) == 1 }
    }

    #[test]
    fn lines_come_out_in_order_with_their_fields_and_the_descriptor_tells() {
        let log = log(3);
        tracing::dispatcher::with_default(&log.dispatch(), || {
            tracing::info!(slots = 7, name = %"x y", "made {}", "it");
            tracing::debug!("not wanted");
            tracing::error!("second");
        });
        assert!(is_readable(&log));
        let first = log.next().map(|r| (r.level, text(&r)));
        assert_eq!(first, Some((3, "made it slots=7 name=x y".into())));
        assert!(is_readable(&log));
        assert_eq!(log.next().map(|r| (r.level, text(&r))), Some((1, "second".into())));
        assert!(!is_readable(&log) && log.next().is_none());
    }

    #[test]
    fn what_there_is_no_room_for_is_counted_and_told_with_the_next_line() {
        let log = log(4);
        tracing::dispatcher::with_default(&log.dispatch(), || {
            for i in 0..CAPACITY + 3 {
                tracing::warn!("{i}");
            }
            assert_eq!(log.next().map(|r| (r.dropped, text(&r))), Some((0, "0".into())));
            tracing::warn!("last");
        });
        let mut rest: Vec<_> = std::iter::from_fn(|| log.next()).map(|r| (r.dropped, text(&r))).collect();
        assert_eq!(rest.pop(), Some((3, "last".into())));
        assert_eq!(rest.pop(), Some((0, (CAPACITY - 1).to_string())));
        assert_eq!(rest.len(), CAPACITY - 2);
    }

    #[test]
    fn once_it_is_closed_the_embedders_function_is_called_no_more() {
        unsafe extern "C" fn count(user: *mut c_void, _: *const ApiLogRecord) {
            // SAFETY: the counter below.
            unsafe { *user.cast::<u32>() += 1 };
        }
        let mut calls = 0u32;
        let log = Log::new(Wanted { level: 3, callback: Some(count), user: (&raw mut calls).cast() });
        let log = Arc::new(log.unwrap_or_else(|e| unreachable!("{e}")));
        tracing::dispatcher::with_default(&log.dispatch(), || {
            tracing::info!("once");
            log.close();
            tracing::info!("not again");
        });
        assert_eq!(calls, 1);
    }

    #[test]
    fn long_texts_are_cut_between_characters_and_zeros_do_not_end_them() {
        let mut record = Line { level: 1, dropped: 0, when: 0, target: "t", text: "\u{20ac}".repeat(TEXT) }.record();
        assert_eq!(text(&record), "\u{20ac}".repeat((TEXT - 1) / 3));
        record = Line { level: 1, dropped: 0, when: 0, target: "t", text: "a\0b".into() }.record();
        assert_eq!(text(&record), "a b");
    }
}
