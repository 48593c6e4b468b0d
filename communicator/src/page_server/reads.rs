//! The page service: reads of the store as of what was ingested.
//!
//! # The read point (R0-R3)
//! A read names r (request LSN) and n (not_modified_since): nothing of what it asks for changed in (n, r]. Refused: r = 0,
//! r < n, r below the horizon. Without n: n := r. If n > L it waits until L >= n. Then it is answered as of min(L, r), by
//! its claim the same as as of n.

use super::gate::GetPage;
use super::pages::Pages;
use super::{blocking, Shared};
use crate::service::{ReadLsn, Result, Retry, ServiceError};
use crate::wire::failure::status_of;
use crate::wire::proto::page_api::{self, page_service_server::PageService};
use crate::wire::read::{lsns_in, rel_in};
use shmuring::request::Lsn;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// What a call comes to.
type Answer<T> = std::result::Result<Response<T>, Status>;

/// As of when a read is asked for: r and n.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked(ReadLsn);

impl Asked {
    /// From the wire; EINVAL for what makes no sense.
    fn read(lsns: Option<page_api::ReadLsn>) -> Result<Self> {
        lsns_in(lsns).map(Self)
    }

    /// As of when it is answered, unless it must wait.
    fn point(self, shared: &Shared) -> Option<ReadLsn> {
        let (at, n) = (shared.ingest.last_record(), self.0.not_modified_since);
        let r = self.0.request_lsn.unwrap_or(Lsn::MAX);
        (n <= at).then(|| ReadLsn { request_lsn: Some(at.min(r)), not_modified_since: n })
    }

    /// The same, once it has waited. EAGAIN if what it waits for does not come in time.
    async fn wait(self, shared: &Shared) -> Result<ReadLsn> {
        if let Some(point) = self.point(shared) {
            return Ok(point);
        }
        let n = self.0.not_modified_since;
        let came = shared.ingest.wait(n, shared.wait_limit).await;
        self.point(shared).filter(|_| came).ok_or_else(|| {
            let e = ServiceError::not_yet(n, shared.gate.shard.number.into());
            tracing::warn!("a read waited {} s in vain: {}", shared.wait_limit.as_secs(), e.detail);
            e
        })
    }
}

/// The page service of a server, for those who were let in.
#[derive(Clone)]
pub(super) struct Reads(pub(super) Arc<Shared>);

impl Reads {
    /// What a unary call comes to; it never takes longer than the server runs.
    async fn unary<Q: Send, T>(
        &self,
        request: Request<Q>,
        work: impl AsyncFnOnce(&Shared, Q) -> std::result::Result<T, Status>,
    ) -> Answer<T> {
        tokio::select! {
            biased;
            answer = work(&self.0, request.into_inner()) => answer.map(Response::new),
            () = self.0.stopping() => Err(Shared::unavailable()),
        }
    }
}

#[async_trait::async_trait]
impl PageService for Reads {
    type GetPagesStream = Pages;
    type GetBaseBackupStream =
        Pin<Box<dyn Stream<Item = std::result::Result<page_api::GetBaseBackupResponseChunk, Status>> + Send>>;

    async fn get_pages(&self, request: Request<Streaming<page_api::GetPageRequest>>) -> Answer<Self::GetPagesStream> {
        Ok(Response::new(Pages::new(self.0.clone(), request.into_inner())))
    }

    async fn get_rel_size(&self, q: Request<page_api::GetRelSizeRequest>) -> Answer<page_api::GetRelSizeResponse> {
        self.unary(q, async |shared, q| {
            let size = async {
                let (rel, asked) = (rel_in(q.rel)?, Asked::read(q.read_lsn)?);
                shared.gate.check_first("sizes of relations")?;
                let point = asked.wait(shared).await?;
                match shared.store.size_of(rel, point)? {
                    None if !q.allow_missing => Err(ServiceError::missing_relation(rel)),
                    size => Ok(size),
                }
            };
            let size = size.await.map_err(|e| status_of(&e))?;
            Ok(page_api::GetRelSizeResponse { num_blocks: size.unwrap_or(0), missing: size.is_none() })
        })
        .await
    }

    async fn get_db_size(&self, q: Request<page_api::GetDbSizeRequest>) -> Answer<page_api::GetDbSizeResponse> {
        self.unary(q, async |shared, q| {
            let size = async {
                let asked = Asked::read(q.read_lsn)?;
                shared.gate.check_first("sizes of databases")?;
                let point = asked.wait(shared).await?;
                let (store, db) = (shared.store.clone(), q.db_oid);
                blocking(move || store.size_of_db(db, point)).await
            };
            Ok(page_api::GetDbSizeResponse { num_bytes: size.await.map_err(|e| status_of(&e))? })
        })
        .await
    }

    async fn get_slru_segment(
        &self,
        q: Request<page_api::GetSlruSegmentRequest>,
    ) -> Answer<page_api::GetSlruSegmentResponse> {
        self.unary(q, async |shared, q| {
            let segment = async {
                let asked = Asked::read(q.read_lsn)?;
                shared.gate.check_first("SLRU segments")?;
                if q.kind > 2 {
                    return Err(ServiceError::invalid(format!("there is no SLRU {}", q.kind)));
                }
                asked.wait(shared).await?;
                shared.store.slru(q.kind, q.segno)
            };
            Ok(page_api::GetSlruSegmentResponse { segment: segment.await.map_err(|e| status_of(&e))?.into() })
        })
        .await
    }

    async fn lease_lsn(&self, q: Request<page_api::LeaseLsnRequest>) -> Answer<page_api::LeaseLsnResponse> {
        self.unary(q, async |shared, q| {
            let expires = shared.leases.lease(q.lsn).map_err(|e| Status::failed_precondition(e.detail))?;
            Ok(page_api::LeaseLsnResponse { expires: Some(expires.into()) })
        })
        .await
    }

    async fn get_base_backup(&self, _: Request<page_api::GetBaseBackupRequest>) -> Answer<Self::GetBaseBackupStream> {
        Err(Status::unimplemented("base backups: this server has pages alone, not the files that a node starts from"))
    }
}

/// A response that is under way.
pub(super) type Later = Pin<Box<dyn Future<Output = page_api::GetPageResponse> + Send>>;

/// Answers a GetPages request at once, or says what to wait for.
pub(super) fn get_page(
    shared: &Arc<Shared>,
    request: page_api::GetPageRequest,
) -> std::result::Result<page_api::GetPageResponse, Later> {
    let (id, rel) = (request.request_id, request.rel);
    let wanted = match shared.gate.check_pages(request) {
        Ok(wanted) => wanted,
        Err(e) => return Ok(response(id, rel, Err(e))),
    };
    let asked = Asked(wanted.lsns);
    if let Some(point) = asked.point(shared) {
        return Ok(response(id, rel, read(shared, &wanted, point)));
    }
    let shared = shared.clone();
    Err(Box::pin(async move {
        let pages = match asked.wait(&shared).await {
            Ok(point) => read(&shared, &wanted, point),
            Err(e) => Err(e),
        };
        response(id, rel, pages)
    }))
}

fn read(shared: &Shared, wanted: &GetPage, point: ReadLsn) -> Result<Vec<page_api::Page>> {
    let images = shared.store.read_blocks(wanted.rel, &wanted.blocks, point).map_err(|e| match e.errno {
        // The store is being opened anew after a full disk.
        libc::EAGAIN | libc::EBUSY => ServiceError { errno: libc::EBUSY, ..e }.with_retry(Retry::Later),
        _ => e,
    })?;
    let page = |(block, image): (&u32, bytes::Bytes)| page_api::Page { block_number: *block, image };
    Ok(wanted.blocks.iter().zip(images).map(page).collect())
}

fn response(
    request_id: Option<page_api::RequestId>,
    rel: Option<page_api::RelTag>,
    pages: Result<Vec<page_api::Page>>,
) -> page_api::GetPageResponse {
    let (status_code, reason, page) = match pages {
        Ok(page) => (page_api::GetPageStatusCode::Ok, String::new(), page),
        Err(e) => (crate::wire::failure::code_of(&e), e.detail, Vec::new()),
    };
    page_api::GetPageResponse { request_id, status_code: status_code.into(), reason, rel, page }
}
