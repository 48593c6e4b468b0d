//! Any bytes as a request: refused by name, or a job that keeps every promise that its users rely on (I10).
#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use shmuring::error::Error;
use shmuring::request::{flags, Class, Job, Opcode, RawExtra, RawRequest, RawVector, MAX_BLOCKS};

fn raw(u: &mut Unstructured<'_>) -> Result<RawRequest> {
    // The likely values of the bytes that decide come first, so that few inputs stop at the first check.
    let tame = u.arbitrary::<u8>()?;
    let mut raw = RawRequest {
        opcode: u.arbitrary()?,
        flags: u.arbitrary()?,
        fork: u.arbitrary()?,
        count: u.arbitrary()?,
        block: u.arbitrary()?,
        arg: u.arbitrary()?,
        pool: u.arbitrary()?,
        reserved: u.arbitrary()?,
        lsn: u.arbitrary()?,
        spc_oid: u.arbitrary()?,
        db_oid: u.arbitrary()?,
        rel_number: u.arbitrary()?,
    };
    if tame & 1 != 0 {
        raw.opcode %= Opcode::ALL.len() as u8;
    }
    if tame & 2 != 0 {
        raw.flags &= flags::KNOWN;
        raw.reserved = 0;
    }
    if tame & 4 != 0 {
        raw.fork &= 3;
    }
    if tame & 8 != 0 {
        raw.count %= MAX_BLOCKS as u8 + 1;
    }
    Ok(raw)
}

fn vector(u: &mut Unstructured<'_>) -> Result<RawVector> {
    let mut v = RawVector::default();
    for lsn in &mut v.lsns {
        *lsn = u.arbitrary()?;
    }
    for buffer in &mut v.buffers {
        *buffer = u.arbitrary()?;
    }
    Ok(v)
}

/// What every accepted request promises.
fn check(raw: &RawRequest, extra: &RawExtra, vector: Option<&RawVector>, job: &Job) {
    let op = job.opcode;
    let count = usize::from(job.count);
    assert_eq!((op as u8, job.count, job.block, job.arg), (raw.opcode, raw.count, raw.block, raw.arg));
    assert_eq!((job.lsn, job.pool, job.rel), (raw.lsn, raw.pool, raw.rel()));
    assert_eq!(raw.reserved, 0);
    assert!(count <= op.max_blocks() && (count > 0 || op.max_blocks() == 0));
    assert!(job.block.checked_add(u32::from(job.count)).is_some());
    assert!(job.rel.fork <= 3 || op == Opcode::Nop);
    assert!(op != Opcode::ZeroExtend || job.arg > 0 && job.block.checked_add(job.arg).is_some());
    assert!(op != Opcode::GetPageAt || job.request_lsn.is_some());
    assert!(!job.allow_missing || matches!(op, Opcode::RelSize | Opcode::RelExists));
    assert_eq!(job.class as u8, raw.flags & flags::CLASS);
    assert!(matches!(job.class, Class::Demand | Class::Prefetch | Class::Background));
    assert_eq!(job.deadline, (raw.flags & flags::DEADLINE != 0).then_some(extra.deadline));
    assert_eq!(job.request_lsn, (raw.flags & flags::REQUEST_LSN != 0).then_some(extra.request_lsn));
    for i in (0..MAX_BLOCKS + 2).chain([usize::MAX]) {
        assert_eq!(job.buffer(i).is_some(), op.has_buffers() && i < count, "buffer {i}");
        let own = vector.and_then(|v| v.buffers.get(i).copied());
        if let Some(buffer) = job.buffer(i) {
            assert_eq!(buffer, own.unwrap_or(raw.arg), "buffer {i}");
        }
        let lsn = vector.filter(|_| raw.flags & flags::BLOCK_LSNS != 0).and_then(|v| v.lsns.get(i).copied());
        assert_eq!(job.block_lsn(i), lsn.unwrap_or(raw.lsn), "LSN {i}");
    }
}

fn run(data: &[u8]) -> Result<()> {
    let mut u = Unstructured::new(data);
    let raw = raw(&mut u)?;
    let extra = RawExtra { deadline: u.arbitrary()?, request_lsn: u.arbitrary()? };
    // As the communicator does; and once without the vector part, which must do no harm either.
    let with = if raw.needs_vector() { Some(vector(&mut u)?) } else { None };
    for v in [with, None] {
        match raw.decode(&extra, v.map(Box::new)) {
            Ok(job) => check(&raw, &extra, v.as_ref(), &job),
            Err(e) => assert!(matches!(e, Error::BadOpcode | Error::BadCount | Error::BadRequest), "{e:?}"),
        }
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let _ = run(data);
});
