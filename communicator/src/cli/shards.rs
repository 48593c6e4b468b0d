//! How far the page service is, shard by shard, as the communicator has told the region.

use super::target::LsnArg;
use serde_json::{json, Value};
use shmuring::layout::Shards;
use shmuring::request::Lsn;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;

/// An object for each shard; none before a communicator has told.
pub(super) fn snapshot(shards: &Shards, now: u64) -> Value {
    let count = usize::try_from(shards.count.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
    let one = |(number, mark): (usize, &shmuring::layout::ShardMark)| {
        let (proved, raised) = (mark.proved.load(Ordering::Relaxed), mark.raised_at.load(Ordering::Relaxed));
        let waiting = mark.waiting.load(Ordering::Relaxed);
        let lsn = |lsn: Lsn| if proved == Lsn::MAX { Value::Null } else { LsnArg(lsn).to_string().into() };
        json!({
            "shard": number,
            "watermark": lsn(proved),
            "ingested": lsn(mark.told.load(Ordering::Relaxed)),
            "age_ms": if raised == 0 { Value::Null } else { (now.saturating_sub(raised) / 1_000_000).into() },
            "waiting": waiting >> 32,
            "batches": waiting & 0xFFFF_FFFF,
        })
    };
    shards.marks.iter().take(count).enumerate().map(one).collect::<Vec<_>>().into()
}

/// A line for each shard that can lag.
pub(super) fn lines(shards: &Value) -> String {
    let mut out = String::new();
    for s in shards.as_array().into_iter().flatten().filter(|s| !s["watermark"].is_null()) {
        let text = |v: &Value| v.as_str().unwrap_or("?").to_string();
        let age = s["age_ms"].as_u64().map_or_else(|| "never".into(), |ms| format!("{ms} ms ago"));
        let _ = writeln!(
            out,
            "shard {:<7} watermark {}, ingested {}, rose {age}, {} reads wait for WAL, {} batches sent",
            s["shard"].to_string(),
            text(&s["watermark"]),
            text(&s["ingested"]),
            s["waiting"],
            s["batches"]
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_that_lag_have_a_line_each_and_others_none() {
        let shards = Shards::default();
        assert_eq!((snapshot(&shards, 0), lines(&snapshot(&shards, 0))), (json!([]), String::new()));
        shards.count.store(2, Ordering::Relaxed);
        shards.marks[0].proved.store(Lsn::MAX, Ordering::Relaxed);
        shards.marks[1].proved.store(0x1_0000_0010, Ordering::Relaxed);
        shards.marks[1].told.store(0x1_0000_0020, Ordering::Relaxed);
        shards.marks[1].raised_at.store(1_000_000, Ordering::Relaxed);
        shards.marks[1].waiting.store(3 << 32 | 4, Ordering::Relaxed);
        let wanted =
            "shard 1       watermark 1/10, ingested 1/20, rose 5 ms ago, 3 reads wait for WAL, 4 batches sent\n";
        assert_eq!(lines(&snapshot(&shards, 6_000_000)), wanted);
        // Damage.
        shards.count.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(snapshot(&shards, 0).as_array().map(Vec::len), Some(shmuring::layout::MAX_SHARDS));
    }
}
