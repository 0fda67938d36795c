//! One request and its answer.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST};
use http::{Method, Request, StatusCode, Version, request};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use tokio::sync::oneshot;

use super::admission::{Asker, admit};
use super::connection::{Connection, Upgraded};
use super::response::{Response, closing};
use super::upgrade;
use crate::dispatch::request_block::request_block;
use crate::id::RequestId;
use crate::limits::clients::Act;
use crate::shard::inbox::{Command, UpgradeReply};

type HttpResponse = http::Response<Full<Bytes>>;

/// Answers one request; whatever goes wrong has a status.
pub(super) async fn exchange(
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<HttpResponse, Infallible> {
    let (head, body) = request.into_parts();
    let is_upgrade = upgrade::is_asked(&head);
    let act = if is_upgrade {
        Act::Upgrade
    } else {
        Act::Request
    };
    let response = match admit(&connection, &head, act) {
        Err(refusal) if body.is_end_stream() && connection.refusal.is_none() => {
            // It has been read to its end, so the connection can go on: it may be a proxy's.
            refusal.into_http(&head.method)
        }
        Err(refusal) => refuse(&connection, &head.method, refusal),
        Ok(_) if !names_its_host(&head) => {
            let text = "exactly one Host header is needed\n";
            let refusal = Response::plain(StatusCode::BAD_REQUEST, text);
            refuse(&connection, &head.method, refusal)
        }
        Ok(asker) if is_upgrade => upgrade_socket(&connection, &head, asker).await,
        Ok(asker) => answer(&connection, &head, body, &asker).await,
    };
    Ok(response)
}

/// RFC 9112 section 3.2: servers that disagree about the host of a request can be played against each other.
fn names_its_host(head: &request::Parts) -> bool {
    let hosts = head.headers.get_all(HOST).iter().count();
    hosts == 1 || (hosts == 0 && head.version < Version::HTTP_11)
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

async fn answer(
    connection: &Connection,
    head: &request::Parts,
    body: Incoming,
    asker: &Asker,
) -> HttpResponse {
    let body = match collect(connection, head, body).await {
        Ok(body) => body,
        Err(refusal) => return refuse(connection, &head.method, refusal),
    };
    let (reply, answer) = oneshot::channel();
    let waiting = Waiting::new(connection);
    connection.shard.send(Command::Request {
        id: waiting.id,
        block: pack(connection, asker, head, &body),
        listener: Arc::clone(&connection.listener),
        reply,
    });
    let response = answer.await.unwrap_or_else(|_| unanswered());
    waiting.answered();
    response.into_http(&head.method)
}

/// The whole body, or the answer to one that is too large, too slow or broken.
async fn collect(
    connection: &Connection,
    head: &request::Parts,
    mut body: Incoming,
) -> Result<Bytes, Response> {
    let options = &connection.listener.options;
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let too_large = || Response::plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large\n");
    let declared = head
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > options.max_body_size as u64) {
        return Err(too_large());
    }
    let collecting = async {
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return Err(Response::plain(
                    StatusCode::BAD_REQUEST,
                    "the body is broken\n",
                ));
            };
            let Ok(data) = frame.into_data() else {
                continue; // trailers carry nothing a handler sees
            };
            if whole.len() + data.len() > options.max_body_size {
                return Err(too_large());
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    };
    tokio::time::timeout(options.body_timeout, collecting)
        .await
        .unwrap_or_else(|_| {
            let text = "the body came too slowly\n";
            Err(Response::plain(StatusCode::REQUEST_TIMEOUT, text))
        })
}

async fn upgrade_socket(
    connection: &Connection,
    head: &request::Parts,
    asker: Asker,
) -> HttpResponse {
    let key = match upgrade::check(head) {
        Ok(key) => key,
        Err(refusal) => {
            tracing::debug!(
                client = %asker.address,
                status = refusal.status,
                "a handshake was refused"
            );
            return refusal.into_http(&head.method);
        }
    };
    let (reply, answer) = oneshot::channel();
    let waiting = Waiting::new(connection);
    connection.shard.send(Command::Upgrade {
        id: waiting.id,
        block: pack(connection, &asker, head, &[]),
        listener: Arc::clone(&connection.listener),
        client: asker.address,
        reply,
    });
    let reply = answer
        .await
        .unwrap_or_else(|_| UpgradeReply::Refused(unanswered()));
    waiting.answered();
    let (reserved, acceptance) = match reply {
        UpgradeReply::Refused(refusal) => return refusal.into_http(&head.method),
        UpgradeReply::Accepted(reserved, acceptance) => (reserved, acceptance),
    };
    match upgrade::accept_headers(&key, &acceptance, &head.headers) {
        Ok(headers) => {
            let mut response = HttpResponse::default();
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            *response.headers_mut() = headers;
            *connection.upgraded.lock() = Some(Upgraded {
                reserved,
                connection: asker.connection,
            });
            response
        }
        Err(error) => {
            tracing::debug!(%error, "the headers of an accepted upgrade cannot be sent");
            let text = "Internal Server Error\n";
            Response::plain(StatusCode::INTERNAL_SERVER_ERROR, text).into_http(&Method::GET)
        }
    }
}

fn pack(connection: &Connection, asker: &Asker, head: &request::Parts, body: &[u8]) -> Vec<u8> {
    let remote_address = if asker.address == connection.peer {
        Cow::Borrowed(&connection.remote_address)
    } else {
        Cow::Owned(asker.address.to_string())
    };
    // hyper keeps the target in parsed form; an absolute one (RFC 9112 section 3.2.2) is reduced to path and query.
    let url = match head.uri.path_and_query() {
        Some(target) => target.as_str(),
        None => "*",
    };
    request_block(
        head.method.as_str(),
        url,
        &remote_address,
        &head.headers,
        body,
    )
}

/// Nobody can answer any more.
fn unanswered() -> Response {
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

    fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.connection.shard.send(Command::ClientGone(self.id));
        }
    }
}
