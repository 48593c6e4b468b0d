//! A GetPages stream: requests in, responses out, strictly in order. One request that waits for an LSN holds up all
//! behind it, and none beside it.

use super::reads::{get_page, Later};
use super::Shared;
use crate::wire::proto::page_api::{GetPageRequest, GetPageResponse};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use tokio_stream::Stream;
use tonic::{Status, Streaming};

/// The responses of a stream. Runs in the task of its call: dropped with it when the client goes.
pub(super) struct Pages {
    shared: Arc<Shared>,
    requests: Streaming<GetPageRequest>,
    /// The response to the last request.
    waiting: Option<Later>,
    /// The server is to stop.
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
}

impl Pages {
    pub(super) fn new(shared: Arc<Shared>, requests: Streaming<GetPageRequest>) -> Self {
        let stopping = shared.clone();
        let stop = Box::pin(async move { stopping.stopping().await });
        Self { shared, requests, waiting: None, stop, ended: false }
    }

    /// The next response, as far as it is there or can be made at once.
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<GetPageResponse, Status>>> {
        if let Some(later) = &mut self.waiting {
            let response = ready!(later.as_mut().poll(cx));
            self.waiting = None;
            return Poll::Ready(Some(Ok(response)));
        }
        match ready!(Pin::new(&mut self.requests).poll_next(cx)) {
            None => Poll::Ready(None),
            Some(Err(status)) => Poll::Ready(Some(Err(status))),
            Some(Ok(request)) => match get_page(&self.shared, request) {
                Ok(response) => Poll::Ready(Some(Ok(response))),
                Err(mut later) => {
                    let polled = later.as_mut().poll(cx);
                    if polled.is_pending() {
                        self.waiting = Some(later);
                    }
                    polled.map(|response| Some(Ok(response)))
                }
            },
        }
    }
}

impl Stream for Pages {
    type Item = Result<GetPageResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = match self.next(cx) {
            Poll::Pending => self.stop.as_mut().poll(cx).map(|()| Some(Err(Shared::unavailable()))),
            next => next,
        };
        self.ended = matches!(next, Poll::Ready(None | Some(Err(_))));
        next
    }
}
