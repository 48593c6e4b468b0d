//! Who may ask, and for what: tokens, tenant, timeline, shard.

use super::record::Shard;
use crate::service::{Mutation, MutationRequest, ReadLsn, Rel, Result, ServiceError, PAGE_SIZE};
use crate::wire::metadata::{bearer, Id, ShardId, Target};
use crate::wire::mutation::{mutation_in, Term};
use crate::wire::proto::{page_api, write};
use crate::wire::read::{lsns_in, rel_in};
use crate::wire::MAX_KEYS;
use shmuring::request::{Lsn, RelTag};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use tonic::metadata::MetadataMap;
use tonic::Status;

/// What a server lets in.
#[derive(Debug)]
pub(super) struct Gate {
    tenant: Option<Id>,
    timeline: Option<Id>,
    pub(super) shard: Shard,
    token_file: Option<PathBuf>,
    /// `None`: nobody is asked for one.
    tokens: RwLock<Option<Vec<Token>>>,
}

/// A token, and the one tenant that it is for, if not for all.
struct Token {
    bytes: Vec<u8>,
    tenant: Option<Id>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token(.., {:?})", self.tenant)
    }
}

impl Token {
    /// Looks at every byte, whichever is the first to differ.
    fn is(&self, token: &[u8]) -> bool {
        let differ = self.bytes.iter().zip(token).fold(0, |all, (a, b)| all | (a ^ b));
        self.bytes.len() == token.len() && differ == 0
    }
}

impl Gate {
    pub(super) fn new(
        shard: Shard,
        tenant: Option<Id>,
        timeline: Option<Id>,
        token_file: Option<PathBuf>,
    ) -> Result<Self> {
        let gate = Self { tenant, timeline, shard, token_file, tokens: RwLock::new(None) };
        gate.read_tokens()?;
        Ok(gate)
    }

    /// Reads the token file anew; on an error the tokens stay as they are.
    pub(super) fn read_tokens(&self) -> Result<()> {
        if let Some(file) = &self.token_file {
            let tokens = read_tokens(file)?;
            *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = Some(tokens);
        }
        Ok(())
    }

    /// Lets a call in, or says as the page service does why not.
    pub(super) fn admit(&self, metadata: &MetadataMap) -> std::result::Result<(), Status> {
        let allowed = self.check_token(metadata)?;
        let target = Target::read(metadata)?;
        if allowed.is_some_and(|tenant| tenant != target.tenant) {
            return Err(Status::permission_denied("the token is not for this tenant"));
        }
        if self.tenant.is_some_and(|t| t != target.tenant) {
            return Err(Status::not_found(format!("tenant {} is not here", target.tenant)));
        }
        if self.timeline.is_some_and(|t| t != target.timeline) {
            return Err(Status::not_found(format!("timeline {} is not here", target.timeline)));
        }
        let Shard { number, count, .. } = self.shard;
        let named = ShardId { count: target.shard.count.max(1), ..target.shard };
        // Unsharded: the client leaves it to the server, and each request is judged by its block.
        if named != (ShardId { number, count }) && target.shard != ShardId::default() {
            return Err(Status::not_found(format!("shard {} is not here: this is {}", target.shard, self.shard)));
        }
        Ok(())
    }

    /// The tenant that the call's token is for, if for one alone.
    fn check_token(&self, metadata: &MetadataMap) -> std::result::Result<Option<Id>, Status> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        let Some(tokens) = tokens.as_ref() else { return Ok(None) };
        let token = bearer(metadata)?.ok_or_else(|| Status::unauthenticated("a token is missing"))?;
        let known = tokens.iter().find(|t| t.is(token.as_bytes()));
        known.map(|t| t.tenant).ok_or_else(|| Status::invalid_argument("the token is not valid"))
    }

    /// EINVAL, naming the right shard, if this one does not have the block.
    pub(super) fn check_block(&self, rel: RelTag, block: u32) -> Result<()> {
        let shard = self.shard.sharding().block(rel, block);
        if shard == u16::from(self.shard.number) {
            return Ok(());
        }
        let what = format!("block {block} of relation {} is on shard {shard}: this is {}", Rel(rel), self.shard);
        Err(ServiceError::invalid(what).at_block(block))
    }

    /// EINVAL unless a writer takes this server for what it is: another count or stripe would put blocks elsewhere.
    pub(super) fn check_shape(&self, taken_for: Option<write::Shard>) -> Result<()> {
        let Some(taken_for) = taken_for else {
            return Err(ServiceError::invalid(format!("the fence names no shard: this is {}", self.shard)));
        };
        let Shard { number, count, stripe } = self.shard;
        let is_this = (taken_for.number, taken_for.count) == (number.into(), count.into());
        if is_this && (count == 1 || taken_for.stripe == stripe) {
            return Ok(());
        }
        let write::Shard { number, count, stripe } = taken_for;
        let what =
            format!("shard {number} of {count}, stripes of {stripe} blocks, is not here: this is {}", self.shard);
        Err(ServiceError::invalid(what))
    }

    /// What a GetPages request asks for; an error if it makes no sense, or asks for blocks of another shard.
    pub(super) fn check_pages(&self, request: page_api::GetPageRequest) -> Result<GetPage> {
        if request.request_id.is_none() {
            return Err(ServiceError::invalid("the request has no id"));
        }
        let (rel, lsns, blocks) = (rel_in(request.rel)?, lsns_in(request.read_lsn)?, request.block_number);
        if blocks.is_empty() {
            return Err(ServiceError::invalid("no block is asked for"));
        }
        if blocks.len() > MAX_KEYS {
            // What the page service answers.
            return Err(ServiceError::new(libc::E2BIG, "Read error"));
        }
        blocks.iter().try_for_each(|b| self.check_block(rel, *b))?;
        Ok(GetPage { rel, lsns, blocks })
    }

    /// A group of mutations, each judged by itself; an error if nobody says who writes, or up to where.
    pub(super) fn check_group(&self, request: write::ApplyRequest) -> Result<Group> {
        let (term, written) = (Term::read(request.term)?, request.written_lsn);
        if written > LAST_LSN {
            return Err(ServiceError::invalid(format!("LSN {written:#x} is past any WAL")));
        }
        let mutations = request.mutation.into_iter().map(|m| self.check_mutation(m)).collect();
        Ok(Group { term, written, mutations })
    }

    /// A mutation from the wire. Pages go to the shard that has them; what changes a size to every shard.
    fn check_mutation(&self, mutation: write::Mutation) -> Result<MutationRequest> {
        let request = mutation_in(mutation)?;
        match &request.mutation {
            Mutation::WritePage { rel, block, pages, .. } => {
                let count = u32::try_from(pages.len() / PAGE_SIZE).unwrap_or(u32::MAX);
                let end = block.checked_add(count);
                let end = end.ok_or_else(|| ServiceError::invalid(format!("blocks {block}+{count}")))?;
                (*block..end).try_for_each(|b| self.check_block(*rel, b))?;
            }
            Mutation::Extend { rel, block, .. } => self.check_block(*rel, *block)?,
            Mutation::ZeroExtend { .. }
            | Mutation::Create { .. }
            | Mutation::Truncate { .. }
            | Mutation::Unlink { .. }
            | Mutation::UpdateRelSize { .. } => {}
        }
        Ok(request)
    }

    /// EINVAL unless this is shard 0, which has all but the blocks of relations.
    pub(super) fn check_first(&self, what: &str) -> Result<()> {
        match self.shard.number {
            0 => Ok(()),
            _ => Err(ServiceError::invalid(format!("{what} are on shard 0: this is {}", self.shard))),
        }
    }
}

/// A GetPages request that makes sense.
#[derive(Debug)]
pub(super) struct GetPage {
    pub(super) rel: RelTag,
    pub(super) lsns: ReadLsn,
    /// From 1 to [`MAX_KEYS`] of this shard.
    pub(super) blocks: Vec<u32>,
}

/// Mutations that are to be applied in order.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) term: Term,
    /// Up to where the writer has come, at most [`LAST_LSN`].
    pub(super) written: Lsn,
    pub(super) mutations: Vec<Result<MutationRequest>>,
}

/// No server writes so much WAL; as the store has it.
const LAST_LSN: Lsn = Lsn::MAX >> 1;
/// More than all tokens take.
const MOST: u64 = 64 << 10;

/// `TOKEN` or `TOKEN TENANT` lines; `#` begins a comment.
fn read_tokens(file: &Path) -> Result<Vec<Token>> {
    let at = |e: std::io::Error| ServiceError::io_at(&e, file.display());
    let about = std::fs::metadata(file).map_err(at)?;
    if !about.is_file() || about.len() > MOST {
        return Err(ServiceError::invalid(format!("{} is not a file of at most 64 KiB", file.display())));
    }
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let what = format!("{} is open to other users (mode {mode:03o}): chmod 600 it", file.display());
        return Err(ServiceError::new(libc::EPERM, what));
    }
    let text = std::fs::read_to_string(file).map_err(at)?;
    let mut tokens = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = |why: &str| ServiceError::invalid(format!("{} line {number}: {why}", file.display()));
        let mut words = line.split('#').next().unwrap_or("").split_whitespace();
        let Some(token) = words.next() else { continue };
        let tenant = words.next().map(str::parse).transpose().map_err(|e: String| wrong(&e))?;
        if words.next().is_some() {
            return Err(wrong("it is not TOKEN or TOKEN TENANT"));
        }
        tokens.push(Token { bytes: token.as_bytes().to_vec(), tenant });
    }
    if tokens.is_empty() {
        return Err(ServiceError::invalid(format!("{} has no token", file.display())));
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn asked(tenant: u128, shard: &str, token: Option<&str>) -> MetadataMap {
        let target = Target { tenant: Id(tenant), timeline: Id(7), shard: shard.parse().unwrap() };
        let mut metadata = MetadataMap::new();
        let token = token.map(|t| crate::wire::metadata::Token::new(t).unwrap());
        target.write(token.as_ref(), &mut metadata);
        metadata
    }

    fn code(gate: &Gate, metadata: &MetadataMap) -> Code {
        gate.admit(metadata).map_or_else(|e| e.code(), |()| Code::Ok)
    }

    #[test]
    fn shards_tenants_and_timelines_that_are_not_here_are_not_found() {
        let shard = Shard { number: 1, count: 3, stripe: 8 };
        let gate = Gate::new(shard, Some(Id(5)), Some(Id(7)), None).unwrap();
        for (tenant, named, wanted) in [
            (5, "0103", Code::Ok),
            (5, "0000", Code::Ok),
            (5, "0203", Code::NotFound),
            (5, "0102", Code::NotFound),
            (6, "0103", Code::NotFound),
        ] {
            assert_eq!(code(&gate, &asked(tenant, named, None)), wanted, "{tenant} {named}");
        }
        assert_eq!(code(&gate, &MetadataMap::new()), Code::InvalidArgument);
        let other = Gate::new(shard, None, Some(Id(8)), None).unwrap();
        assert_eq!(code(&other, &asked(5, "0103", None)), Code::NotFound);
        let alone = Gate::new(Shard { number: 0, count: 1, stripe: 8 }, None, None, None).unwrap();
        assert_eq!(code(&alone, &asked(5, "0001", None)), Code::Ok);
        assert_eq!(code(&alone, &asked(5, "0000", None)), Code::Ok);
    }

    #[test]
    fn a_writer_that_takes_the_server_for_another_shard_is_told_what_it_is() {
        let gate = |number, count| Gate::new(Shard { number, count, stripe: 8 }, None, None, None).unwrap();
        let named = |number, count, stripe| Some(write::Shard { number, count, stripe });
        assert_eq!(gate(1, 3).check_shape(named(1, 3, 8)), Ok(()));
        for wrong in [named(1, 3, 16), named(2, 3, 8), named(1, 4, 8), named(0, 1, 8), named(257, 3, 8), None] {
            let e = gate(1, 3).check_shape(wrong).unwrap_err();
            assert!(e.errno == libc::EINVAL && e.detail.contains("this is shard 1 of 3, stripes of 8 blocks"), "{e}");
        }
        // There is nothing to cut.
        assert_eq!(gate(0, 1).check_shape(named(0, 1, 16)), Ok(()));
        assert!(gate(0, 1).check_shape(named(0, 2, 8)).is_err());
    }

    #[test]
    fn tokens_are_asked_for_as_the_page_service_does_and_their_file_is_read_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        let write = |text: &str, mode: u32| {
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        write("for-all # a comment\n\nfor-five 00000000000000000000000000000005\n", 0o600);
        let shard = Shard { number: 0, count: 1, stripe: 8 };
        let gate = Gate::new(shard, None, None, Some(file.clone())).unwrap();
        for (tenant, token, wanted) in [
            (5, Some("for-all"), Code::Ok),
            (5, Some("for-five"), Code::Ok),
            (6, Some("for-five"), Code::PermissionDenied),
            (5, Some("for-al"), Code::InvalidArgument),
            (5, Some("for-all2"), Code::InvalidArgument),
            (5, None, Code::Unauthenticated),
        ] {
            assert_eq!(code(&gate, &asked(tenant, "0000", token)), wanted, "{tenant} {token:?}");
        }
        write("another\n", 0o600);
        gate.read_tokens().unwrap();
        assert_eq!(code(&gate, &asked(5, "0000", Some("for-all"))), Code::InvalidArgument);
        for (text, mode) in [("another\n", 0o640), ("", 0o600), ("a b c\n", 0o600), ("a 5\n", 0o600)] {
            write(text, mode);
            assert!(gate.read_tokens().is_err(), "{text:?} {mode:o}");
            assert_eq!(code(&gate, &asked(5, "0000", Some("another"))), Code::Ok, "they stay");
        }
        assert!(!format!("{gate:?}").contains("another"));
    }
}
