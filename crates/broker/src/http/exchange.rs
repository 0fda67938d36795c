//! One request and its answer.

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, StatusCode, request};
use hyper::body::{Body, Frame, Incoming};
use tokio::sync::oneshot;

use super::admission::{Asker, admit};
use super::amend::RawTarget;
use super::answer::Reply;
use super::connection::{Connection, Upgraded};
use super::origin::OriginCheckup;
use super::response::{HttpResponse, Response, ResponseError, closing};
use super::{target, upgrade};
use crate::dispatch::request_block::{Parts, Unpacked, set_protocol};
use crate::id::RequestId;
use crate::limits::clients::Act;
use crate::limits::entrance::count;
use crate::listener::Handshake;
use crate::shard::inbox::{Command, Terms, UpgradeReply};
use crate::shard::origin_refused;

/// The answer to one request, on its way.
pub(super) struct Exchange<'a> {
    connection: &'a Connection,
    step: Step<'a>,
}

enum Step<'a> {
    /// A worker has the request, which is how most requests spend their time.
    Given(Given<'a>),
    /// It takes more than that, or less. `Send` as the task of the connection is.
    Other(Pin<Box<dyn Future<Output = HttpResponse> + Send + 'a>>),
}

impl Step<'_> {
    fn answer(response: HttpResponse) -> Self {
        Self::Other(Box::pin(ready(response)))
    }
}

/// Answers one request; whatever goes wrong has a status. A request without a body is given to its worker by the call:
/// its head is cut out of hyper's read buffer, and while there is any of it hyper can only go on reading into another.
pub(super) fn exchange(connection: &Arc<Connection>, request: Request<Incoming>) -> Exchange<'_> {
    connection.progress.head_ended();
    Exchange {
        step: begin(connection, request),
        connection,
    }
}

impl Future for Exchange<'_> {
    type Output = Result<HttpResponse, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(match &mut self.step {
            Step::Given(given) => Pin::new(given).poll(cx),
            Step::Other(steps) => steps.as_mut().poll(cx),
        });
        self.connection.progress.answered();
        Poll::Ready(Ok(response))
    }
}

fn begin(connection: &Arc<Connection>, request: Request<Incoming>) -> Step<'_> {
    let (mut head, body) = request.into_parts();
    let is_upgrade = upgrade::is_asked(&head);
    connection.is_upgrade.store(is_upgrade, Ordering::Relaxed);
    if let Some(raw) = connection.hidden.take(head.uri.path_and_query()) {
        head.extensions.insert(raw);
    }
    let act = if is_upgrade {
        Act::Upgrade
    } else {
        Act::Request
    };
    let asker = match admit(connection, &head, act) {
        Ok(asker) => asker,
        Err(refusal) if body.is_end_stream() && connection.refusal.is_none() => {
            // It has been read to its end, so the connection can go on: it may be a proxy's.
            return Step::answer(refusal.into_http(&head.method));
        }
        Err(refusal) => return Step::answer(refuse(connection, &head.method, refusal)),
    };
    if let Err(refusal) = target::settle(&mut head) {
        return Step::answer(refuse(connection, &head.method, refusal));
    }
    if is_upgrade {
        return Step::Other(Box::pin(async move {
            upgrade_socket(connection, &head, asker).await
        }));
    }
    if body.is_end_stream() {
        return Step::Given(give(connection, head, &[], &asker));
    }
    Step::Other(Box::pin(async move {
        match collect(connection, &head, body).await {
            Ok(body) => give(connection, head, &body, &asker).await,
            Err(refusal) => refuse(connection, &head.method, refusal),
        }
    }))
}

/// Answers before the request has been read to its end, and ends the connection with it.
fn refuse(connection: &Connection, method: &Method, refusal: Response) -> HttpResponse {
    tracing::debug!(
        peer = %connection.peer,
        status = refusal.status,
        "a request was refused"
    );
    let mut response = refusal.into_http(method);
    closing(&mut response);
    connection.cut_short.store(true, Ordering::Relaxed);
    response
}

/// Requests that take up to so many bytes are packed in the shard's inbox, as short answers are; with larger ones other
/// threads would have to wait for it.
const SHORT: usize = 4096;

/// A map of headers with room for more is not kept: one request of very many would stay in memory as long as its connection.
const MOST_KEPT_HEADERS: usize = 64;

/// Gives a whole request to a worker.
fn give<'a>(
    connection: &'a Arc<Connection>,
    head: request::Parts,
    body: &[u8],
    asker: &Asker,
) -> Given<'a> {
    let waiting = Waiting::new(connection);
    let reply = Reply::new(connection);
    let (shard, id) = (&connection.shard, waiting.id);
    with_unpacked(connection, asker, &head, body, |request| {
        if request.len() <= SHORT {
            shard.request_copied(id, reply, &request);
        } else {
            let block = request.pack();
            shard.send(Command::Request { id, block, reply });
        }
    });
    connection.unended.store(id.get(), Ordering::Relaxed);
    let request::Parts {
        method,
        mut headers,
        ..
    } = head;
    if headers.capacity() > MOST_KEPT_HEADERS {
        headers = HeaderMap::new();
    }
    headers.clear();
    Given {
        waiting,
        method,
        headers,
    }
}

/// A request that a worker has, until its answer.
struct Given<'a> {
    waiting: Waiting<'a>,
    method: Method,
    /// The request's, without what was in it, for those of the answer: hyper uses it for the next request again.
    headers: HeaderMap,
}

impl Future for Given<'_> {
    type Output = HttpResponse;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<HttpResponse> {
        let answer = ready!(self.waiting.connection.answer.poll_take(cx));
        self.waiting.answered();
        let headers = mem::take(&mut self.headers);
        Poll::Ready(answer.into_http(&self.method, headers))
    }
}

/// The whole body, or the answer to one that is too large, too slow or broken.
async fn collect(
    connection: &Connection,
    head: &request::Parts,
    mut body: Incoming,
) -> Result<Bytes, Response> {
    let options = &connection.listener.options;
    let too_large = || Response::plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large\n");
    let declared = head
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > options.max_body_size as u64) {
        return Err(too_large());
    }
    connection.progress.body_began();
    let mut whole = BytesMut::new();
    while let Some(frame) = next_frame(connection, &mut body).await? {
        let Ok(data) = frame.into_data() else {
            continue; // trailers carry nothing a handler sees
        };
        if whole.len() + data.len() > options.max_body_size {
            return Err(too_large());
        }
        whole.extend_from_slice(&data);
        connection.progress.body_received(data.len());
    }
    connection.progress.body_ended();
    Ok(whole.freeze())
}

/// More of the body; `None` at its end.
async fn next_frame(
    connection: &Connection,
    body: &mut Incoming,
) -> Result<Option<Frame<Bytes>>, Response> {
    let frame = poll_fn(|cx| {
        // Whoever finds the body late polls the connection, and so this, once more.
        if connection.progress.body_is_late() {
            return Poll::Ready(Err(()));
        }
        Pin::new(&mut *body).poll_frame(cx).map(Ok)
    });
    match frame.await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(frame))) => Ok(Some(frame)),
        Ok(Some(Err(_))) => {
            let text = "the body is broken\n";
            Err(Response::plain(StatusCode::BAD_REQUEST, text))
        }
        Err(()) => {
            connection.shard.counters.slow_requests.add(1);
            let text = "the body came too slowly\n";
            Err(Response::plain(StatusCode::REQUEST_TIMEOUT, text))
        }
    }
}

async fn upgrade_socket(
    connection: &Arc<Connection>,
    head: &request::Parts,
    asker: Asker,
) -> HttpResponse {
    let client = asker.address;
    match open_socket(connection, head, asker).await {
        Ok(response) => response,
        Err(refusal) => {
            tracing::debug!(
                %client,
                status = refusal.status,
                "a handshake was refused"
            );
            refusal.into_http(&head.method)
        }
    }
}

/// The 101, or the answer to a handshake that is not to be.
async fn open_socket(
    connection: &Arc<Connection>,
    head: &request::Parts,
    asker: Asker,
) -> Result<HttpResponse, Response> {
    let listener = &connection.listener;
    let key = upgrade::check(head)?;
    let extension = upgrade::negotiate(head, listener.options.compression.as_ref())?;
    let question = match listener.options.origins.check(&head.headers) {
        OriginCheckup::Allowed => None,
        OriginCheckup::Asked(question) => Some(question),
        OriginCheckup::Refused => {
            return Err(origin_refused(listener));
        }
    };
    let Some(handshake) = Handshake::begin(listener) else {
        count(&listener.entrance.refusals.handshakes);
        let text = "too many handshakes at once\n";
        let refusal = Response::plain(StatusCode::SERVICE_UNAVAILABLE, text);
        return Err(refusal.with("retry-after", "1"));
    };

    let mut block = with_unpacked(connection, &asker, head, &[], |request| request.pack());
    let protocol = upgrade::choose_protocol(&listener.options.protocols, &head.headers);
    set_protocol(&mut block, protocol);
    let (reply, answer) = oneshot::channel();
    let mut waiting = Waiting::new(connection);
    connection.shard.send(Command::Upgrade {
        id: waiting.id,
        block,
        terms: Terms {
            listener: Arc::clone(listener),
            client: asker.address,
            deflate: extension.as_ref().map(|accepted| accepted.deflate),
        },
        question,
        reply,
    });
    let reply = answer
        .await
        .unwrap_or_else(|_| UpgradeReply::Refused(unanswered()));
    waiting.answered();
    match reply {
        UpgradeReply::Refused(refusal) => Err(refusal),
        UpgradeReply::Accepted(reserved, acceptance) => {
            let extensions = extension.as_ref().map(|accepted| &*accepted.response);
            let headers = upgrade::accept_headers(&key, &acceptance, extensions);
            let upgraded = Upgraded {
                reserved,
                handshake,
                connection: asker.connection,
            };
            switch_protocols(connection, headers, upgraded)
        }
    }
}

/// The 101. With it the connection has a place for its socket.
fn switch_protocols(
    connection: &Connection,
    headers: Result<HeaderMap, ResponseError>,
    upgraded: Upgraded,
) -> Result<HttpResponse, Response> {
    let headers = headers.map_err(|error| {
        tracing::debug!(%error, "the headers of an accepted upgrade cannot be sent");
        let text = "Internal Server Error\n";
        Response::plain(StatusCode::INTERNAL_SERVER_ERROR, text)
    })?;
    let mut response = HttpResponse::default();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    *connection.upgraded.lock() = Some(upgraded);
    Ok(response)
}

/// Hands on what workers get of a request.
fn with_unpacked<R>(
    connection: &Connection,
    asker: &Asker,
    head: &request::Parts,
    body: &[u8],
    use_request: impl FnOnce(Unpacked<'_>) -> R,
) -> R {
    let remote_address = if asker.address == connection.peer {
        Cow::Borrowed(&connection.remote_address)
    } else {
        Cow::Owned(asker.address.to_string())
    };
    let url = match head.extensions.get() {
        Some(RawTarget(url)) => url,
        None => head.uri.path_and_query().map_or("/", PathAndQuery::as_str),
    };
    use_request(Unpacked::new(Parts {
        method: head.method.as_str(),
        url,
        remote_address: &remote_address,
        headers: &head.headers,
        body,
    }))
}

/// Nobody can answer any more.
pub(super) fn unanswered() -> Response {
    Response::plain(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable\n")
}

/// A request that a worker may be looking at. Dropped before its answer, the client has gone away.
struct Waiting<'a> {
    connection: &'a Connection,
    id: RequestId,
    answered: bool,
}

impl<'a> Waiting<'a> {
    fn new(connection: &'a Connection) -> Self {
        Self {
            connection,
            id: connection.shard.next_request_id(),
            answered: false,
        }
    }

    fn answered(&mut self) {
        self.answered = true;
        self.connection.unended.store(0, Ordering::Relaxed);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.connection.shard.send(Command::ClientGone(self.id));
        }
    }
}
