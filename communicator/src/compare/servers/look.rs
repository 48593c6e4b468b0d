//! Looking at blocks: first at all of them, then at those in doubt until they are judged.

use super::feed::{Group, Next, Suspect};
use super::judge::{between, first, Kind, Verdict};
use super::report::Difference;
use super::side::Side;
use super::{Options, Shared};
use crate::service::standby::answer::{Blocks, Status};
use crate::service::standby::link::Masked;
use crate::service::{Result, Retry, ServiceError, PAGE_SIZE};
use shmuring::request::Lsn;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

/// Looks after which a block that changes all the time is left alone.
const TRIES: u32 = 40;
/// Failed questions about a group after which its blocks are asked for one by one, and about one block after which it
/// is called unreadable.
const ERRORS: (u32, u32) = (3, 6);
/// Between two looks at nothing, or at what still changes.
const PAUSE: Duration = Duration::from_millis(10);

/// One task with its connections.
pub(super) struct Looker {
    shared: Arc<Shared>,
    primary: Side,
    standby: Side,
}

/// The page of an entry, if it is in the answer.
fn page_of(blocks: &Blocks, i: usize) -> Option<&[u8]> {
    let before = blocks.entries.get(..i)?.iter().filter(|e| e.status == Status::Read).count();
    let is_there = blocks.entries.get(i)?.status == Status::Read;
    blocks.pages.get(before * PAGE_SIZE..(before + 1) * PAGE_SIZE).filter(|_| is_there)
}

/// Where two masked pages begin to differ.
fn offset(before: &Blocks, standby: &Blocks, i: usize) -> Option<usize> {
    let (a, b) = (page_of(before, i)?, page_of(standby, i)?);
    a.iter().zip(b).position(|(a, b)| a != b)
}

impl Looker {
    pub(super) fn new(shared: Arc<Shared>, options: &Options) -> Self {
        let side = |conninfo, is_standby| Side::new(conninfo, is_standby, options.patience);
        Self { shared, primary: side(&options.primary, false), standby: side(&options.standby, true) }
    }

    fn question<'a>(shared: &'a Shared, fork: usize, blocks: &'a [i64]) -> Result<Masked<'a>> {
        let fork = shared.forks.get(fork).ok_or_else(|| ServiceError::invalid("no such fork"))?;
        let wait = Duration::ZERO;
        Ok(Masked { rel: fork.rel, kind: &fork.kind, blocks, after: 0, wait, exact: false, pages: false })
    }

    /// A first look at every block. The standby is not waited for: what it has not replayed yet is in doubt.
    pub(super) async fn first(&mut self) -> Result<()> {
        let shared = self.shared.clone();
        while let Some((fork, range)) = shared.feed.next() {
            shared.rate.take(range.len() as u64).await;
            let blocks: Vec<i64> = range.clone().map(i64::from).collect();
            let question = Self::question(&shared, fork, &blocks)?;
            let size = shared.feed.size(fork);
            let suspects = range.clone().map(|block| Suspect::new(block, block >= size));
            let looked = match self.primary.masked(&question).await {
                Ok(primary) => self.standby.masked(&question).await.map(|standby| (primary, standby)),
                Err(e) => Err(e),
            };
            let group = match looked {
                Ok((primary, standby)) => {
                    if primary.entries.iter().all(|e| e.status == Status::NoRelation) {
                        let rest = u64::from(shared.feed.skip_rest(fork));
                        shared.report(|r| r.skipped.gone += rest);
                        shared.progress.looked.fetch_add(rest, Ordering::Relaxed);
                    }
                    let verdicts = primary.entries.iter().zip(&standby.entries).map(|(p, s)| first(p, s));
                    self.count(suspects.zip(verdicts))
                }
                // An error of one block, perhaps.
                Err(e) if e.retry == Retry::Later => suspects.collect(),
                Err(e) => return Err(e),
            };
            let looked = range.end.min(size).saturating_sub(range.start);
            shared.progress.looked.fetch_add(looked.into(), Ordering::Relaxed);
            shared.progress.doubts.fetch_add(group.len() as u64, Ordering::Relaxed);
            shared.feed.doubt(Group { fork, blocks: group, errors: 0 });
        }
        shared.feed.fed();
        Ok(())
    }

    /// Counts what is judged, and gives the rest back.
    fn count(&self, looked: impl Iterator<Item = (Suspect, Verdict)>) -> Vec<Suspect> {
        let (mut rest, mut same, mut new, mut gone) = (Vec::new(), 0, 0, 0);
        for (suspect, verdict) in looked {
            match verdict {
                Verdict::Same => same += 1,
                Verdict::New | Verdict::Gone if suspect.is_end => {}
                Verdict::New => new += 1,
                Verdict::Gone => gone += 1,
                Verdict::Doubt | Verdict::Differs(_) => rest.push(suspect),
            }
        }
        self.shared.report(|r| {
            r.compared += same;
            r.skipped.new += new;
            r.skipped.gone += gone;
        });
        rest
    }

    /// Looks at what is in doubt until there can be no more of it.
    pub(super) async fn second(&mut self) -> Result<()> {
        let shared = self.shared.clone();
        loop {
            let group = match shared.feed.next_doubt() {
                Next::Look(group) => group,
                Next::Wait => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Next::End => return Ok(()),
            };
            let before = group.blocks.len();
            let rest = match self.look(&group).await {
                Ok(rest) => vec![Group { blocks: rest, errors: 0, fork: group.fork }],
                Err(e) if e.retry == Retry::Later => {
                    tokio::time::sleep(PAUSE).await;
                    self.not_answered(group, &e)
                }
                Err(e) => return Err(e),
            };
            let left = rest.iter().map(|g| g.blocks.len()).sum::<usize>();
            shared.progress.doubts.fetch_sub(before.saturating_sub(left) as u64, Ordering::Relaxed);
            shared.feed.judged(rest);
            if left == before {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// A server could not answer: the blocks are asked for one by one, and one that fails again and again is reported.
    fn not_answered(&self, mut group: Group, e: &ServiceError) -> Vec<Group> {
        group.errors += 1;
        let fork = group.fork;
        match group.blocks.as_slice() {
            [one] if group.errors >= ERRORS.1 => {
                let name = self.shared.forks.get(fork).map_or_else(String::new, |f| f.relation.clone());
                let what = format!("block {} of {name}: {}", one.block, e.detail);
                self.shared.report(|r| r.unreadable(what));
                Vec::new()
            }
            [_] => vec![group],
            all if group.errors >= ERRORS.0 => {
                all.iter().map(|one| Group { fork, blocks: vec![*one], errors: 0 }).collect()
            }
            _ => vec![group],
        }
    }

    /// The standby between two looks at the primary. Gives back what is still in doubt.
    async fn look(&mut self, group: &Group) -> Result<Vec<Suspect>> {
        let shared = self.shared.clone();
        let blocks: Vec<i64> = group.blocks.iter().map(|s| s.block.into()).collect();
        let question = Self::question(&shared, group.fork, &blocks)?;
        let pages = group.blocks.iter().any(|s| s.seen.is_some_and(|(kind, n)| n + 1 >= kind.looks()));
        let before = self.primary.masked(&Masked { exact: true, pages, ..question }).await?;
        self.standby.replayed(before.read_lsn).await?;
        let question = Self::question(&shared, group.fork, &blocks)?;
        let standby = self.standby.masked(&Masked { after: before.read_lsn, pages, ..question }).await?;
        let after = self.primary.masked(&Self::question(&shared, group.fork, &blocks)?).await?;
        let looks = before.entries.iter().zip(&standby.entries).zip(&after.entries);
        let verdicts = looks.map(|((b, s), a)| between(b, s, a));
        let mut judged = Vec::new();
        for (i, (suspect, verdict)) in group.blocks.iter().zip(verdicts).enumerate() {
            let mut suspect = *suspect;
            match verdict {
                Verdict::Doubt => {
                    (suspect.tries, suspect.seen) = (suspect.tries + 1, None);
                    if suspect.tries >= TRIES {
                        shared.report(|r| r.skipped.busy += u64::from(!suspect.is_end));
                        continue;
                    }
                }
                Verdict::Differs(kind) => {
                    let before_that = suspect.seen.filter(|(last, _)| *last == kind).map_or(0, |(_, n)| n);
                    suspect.seen = Some((kind, before_that + 1));
                    if before_that + 1 >= kind.looks() {
                        let lsn = |b: &Blocks| b.entries.get(i).map_or(0, |e| e.lsn);
                        let lsns = (lsn(&before), lsn(&standby));
                        self.differs(group.fork, suspect.block, kind, lsns, offset(&before, &standby, i));
                        continue;
                    }
                }
                Verdict::Same | Verdict::New | Verdict::Gone => {}
            }
            judged.push((suspect, verdict));
        }
        Ok(self.count(judged.into_iter()))
    }

    fn differs(&self, fork: usize, block: u32, kind: Kind, lsns: (Lsn, Lsn), offset: Option<usize>) {
        let Some(fork) = self.shared.forks.get(fork) else { return };
        let found = Difference {
            database: fork.database.clone(),
            relation: fork.relation.clone(),
            rel: fork.rel,
            block,
            kind,
            primary_lsn: lsns.0,
            standby_lsn: lsns.1,
            offset,
        };
        self.shared.progress.differences.fetch_add(1, Ordering::Relaxed);
        self.shared.report(|r| r.add(found));
    }
}
