//! Whether a request is let in: who asks, and how much of it that client may. Nothing refused here reaches a worker.

use std::sync::Arc;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{StatusCode, request};

use super::connection::Connection;
use super::response::Response;
use crate::client::forwarded::{self, Contradiction};
use crate::client::{ClientAddress, TrustProxy};
use crate::limits::clients::{Act, ClientConnection};
use crate::limits::entrance::count;
use crate::listener::{ListenerShared, TooManyConnections};

/// Who asks.
pub(super) struct Asker {
    pub(super) address: ClientAddress,
    /// Counts the socket that this request may open, where its connection is a proxy's.
    pub(super) connection: Option<ClientConnection>,
}

/// Finds out who asks. The order of the checks: bans, connections, rates.
pub(super) fn admit(
    connection: &Connection,
    head: &request::Parts,
    act: Act,
) -> Result<Asker, Response> {
    let listener = &connection.listener;
    if let Some(reason) = connection.refusal {
        return Err(too_many_connections(reason));
    }
    let address = client_of(connection, head)?;
    if listener.turns_away(address) {
        return Err(banned());
    }
    let is_proxied = listener.options.trust_proxy.trusts(connection.peer, 0);
    let counted = if is_proxied && act == Act::Upgrade {
        let too_many = |_| too_many_connections(TooManyConnections::OfClient);
        listener.connect(address).map_err(too_many)?
    } else {
        None
    };
    listener.take(address, act)?;
    Ok(Asker {
        address,
        connection: counted,
    })
}

fn client_of(connection: &Connection, head: &request::Parts) -> Result<ClientAddress, Response> {
    let trust = &connection.listener.options.trust_proxy;
    if *trust == TrustProxy::Nobody {
        return Ok(connection.peer);
    }
    forwarded::client(connection.peer, &head.headers, trust).map_err(|Contradiction| {
        // It costs nobody anything: any client behind a proxy that sets one header can send the other one, so neither
        // address is to be charged for it, and the proxy has requests of its own.
        count(&connection.listener.entrance.refusals.contradictions);
        tracing::debug!(peer = %connection.peer, "two headers name different clients");
        let text = "X-Forwarded-For and Forwarded name different clients; a proxy has to set both or remove one\n";
        Response::plain(StatusCode::BAD_REQUEST, text)
    })
}

/// The answer to a client that is kept out.
pub(crate) fn banned() -> Response {
    Response::plain(StatusCode::FORBIDDEN, "Forbidden\n")
}

fn too_many_connections(reason: TooManyConnections) -> Response {
    match reason {
        TooManyConnections::OfClient => {
            let text = "too many connections of this client\n";
            Response::plain(StatusCode::TOO_MANY_REQUESTS, text)
        }
        TooManyConnections::OfAll => {
            let text = "too many connections\n";
            Response::plain(StatusCode::SERVICE_UNAVAILABLE, text).with("retry-after", "1")
        }
    }
}

/// `wait` is in milliseconds; the header knows whole seconds, and one that is too short is of no use.
fn too_often(wait: u32) -> Response {
    let mut response = Response::plain(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests\n");
    let seconds = Bytes::from(wait.div_ceil(1000).max(1).to_string());
    let name = Bytes::from_static(RETRY_AFTER.as_str().as_bytes());
    response.headers.push((name, seconds));
    response
}

impl ListenerShared {
    /// Takes a token of this client.
    fn take(&self, client: ClientAddress, act: Act) -> Result<(), Response> {
        let (Some(clients), Some(key)) = (&self.clients, client.key()) else {
            return Ok(());
        };
        clients.take(key, act, self.entrance.now()).map_err(|wait| {
            let refusals = &self.entrance.refusals;
            count(match act {
                Act::Upgrade => &refusals.upgrades_per_ip,
                Act::Request => &refusals.requests_per_ip,
            });
            tracing::debug!(%client, ?act, wait, "a client asks too often");
            too_often(wait)
        })
    }
}

/// What came could not be parsed and has been answered; it costs its client a request all the same. Behind a trusted
/// proxy nobody knows whose it was.
pub(super) fn charge_unparsed(listener: &Arc<ListenerShared>, peer: ClientAddress) {
    if let (Some(clients), Some(key)) = (&listener.clients, peer.key())
        && !listener.options.trust_proxy.trusts(peer, 0)
    {
        let _ = clients.take(key, Act::Request, listener.entrance.now());
    }
}
