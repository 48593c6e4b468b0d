//! The end of a demo, as a table or as JSON.

use super::fleet::Counters;
use super::tally::Tally;
use hdrhistogram::Histogram;
use serde_json::{json, Value};
use std::time::Duration;

/// What a demo came to.
pub(super) struct Report {
    pub(super) tally: Tally,
    pub(super) counters: Counters,
    pub(super) elapsed: Duration,
    pub(super) backends: u32,
    pub(super) depth: u32,
    pub(super) service: String,
    pub(super) backends_killed: u32,
    pub(super) communicator_restarts: u32,
    pub(super) page_server_restarts: u32,
    pub(super) held_back_ms: Option<u32>,
}

/// Percentiles of latencies, in ns.
fn percentiles(h: &Histogram<u64>) -> Value {
    let at = |q| h.value_at_quantile(q);
    json!({ "count": h.len(), "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": h.max() })
}

impl Report {
    /// Whether everything was as it should be.
    pub(super) fn is_good(&self) -> bool {
        let t = &self.tally;
        t.wrong == 0 && t.lost == 0 && t.errors == 0 && self.counters.lost_hints == 0 && t.verified > 0
    }

    fn requests_per_second(&self) -> f64 {
        self.counters.finished as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// System calls of the ring itself, on both sides: doorbells, sleeps, parks and wake-ups. What the page service and its
    /// runtime do besides is theirs.
    fn syscalls_per_request(&self) -> f64 {
        let c = &self.counters;
        (c.doorbell_rings + c.futex_waits + c.parks + c.wakes) as f64 / c.finished.max(1) as f64
    }

    pub(super) fn to_json(&self) -> Value {
        let (t, c) = (&self.tally, &self.counters);
        let at = |q| t.latency.value_at_quantile(q);
        json!({
            "service": self.service, "backends": self.backends, "depth": self.depth,
            "seconds": self.elapsed.as_secs_f64(),
            "pages_verified": t.verified, "wrong": t.wrong, "lost": t.lost, "errors": t.errors,
            "requests": t.requests, "cancelled": t.cancelled, "leftovers": t.leftovers,
            "requests_per_second": self.requests_per_second(),
            "syscalls_per_request": self.syscalls_per_request(),
            "latency_ns": { "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": t.latency.max() },
            "doorbell_rings": c.doorbell_rings, "futex_waits": c.futex_waits, "parks": c.parks, "wakes": c.wakes,
            "lost_hints": c.lost_hints, "stepped_over": c.stepped_over, "take_overs": c.take_overs,
            "reclaimed": c.reclaimed, "backends_killed": self.backends_killed,
            "communicator_restarts": self.communicator_restarts, "notes": t.notes,
            "page_server_restarts": self.page_server_restarts, "held_back_ms": self.held_back_ms,
            "ready_free_ns": percentiles(&t.ready[0]), "ready_held_ns": percentiles(&t.ready[1]),
            "hidden_held_ns": percentiles(&t.hidden),
        })
    }

    pub(super) fn print(&self) {
        let (t, c) = (&self.tally, &self.counters);
        let row = |name: &str, value: String| println!("{name:<26} {value}");
        println!();
        row("service", self.service.clone());
        row("processes", format!("1 communicator, {} backends x {} in flight", self.backends, self.depth));
        for (kind, n) in &t.requests {
            row(&format!("requests: {kind}"), n.to_string());
        }
        row("requests: all", t.total().to_string());
        row("cancelled", t.cancelled.to_string());
        row("pages verified", t.verified.to_string());
        row("wrong", t.wrong.to_string());
        row("lost", t.lost.to_string());
        row("errors", t.errors.to_string());
        row("requests a second", format!("{:.0}", self.requests_per_second()));
        let us = |q| format!("{:.1} us", t.latency.value_at_quantile(q) as f64 / 1000.0);
        row("latency p50 / p99 / p99.9", format!("{} / {} / {}", us(0.5), us(0.99), us(0.999)));
        row("doorbell rings", c.doorbell_rings.to_string());
        row("futex waits", c.futex_waits.to_string());
        row("parks, wake-ups", format!("{}, {}", c.parks, c.wakes));
        row("system calls a request", format!("{:.4}", self.syscalls_per_request()));
        row("lost hints", c.lost_hints.to_string());
        if self.backends_killed + self.communicator_restarts > 0 {
            row("backends killed", format!("{}, leftovers settled {}", self.backends_killed, t.leftovers));
            row(
                "communicators restarted",
                format!("{}, requests taken over {}", self.communicator_restarts, c.reclaimed),
            );
        }
        if let Some(ms) = self.held_back_ms {
            let ms_at = |h: &Histogram<u64>, q| h.value_at_quantile(q) as f64 / 1e6;
            let both = |h| format!("{:.2} / {:.2} ms", ms_at(h, 0.5), ms_at(h, 0.99));
            let [free, held] = &t.ready;
            row("ingest held back", format!("one shard by {ms} ms, every other second"));
            row("READY p50 / p99, free", both(free));
            row("READY p50 / p99, held", both(held));
            row("READY p99, held / free", format!("{:.2} x", ms_at(held, 0.99) / ms_at(free, 0.99).max(1e-6)));
            row("written p50 / p99, held", both(&t.hidden));
        }
        for note in &t.notes {
            println!("  {note}");
        }
    }
}
