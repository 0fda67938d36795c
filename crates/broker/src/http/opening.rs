//! What comes before the first request: the PROXY header, where a listener demands one.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::client::ClientAddress;
use crate::client::proxy_protocol::{LONGEST, Parsed, Source, parse};
use crate::listener::{ListenerShared, StopPhase};

/// Reads the header and says who the peer is according to it. `None`: the connection ends without an answer, for what
/// is at its other end does not speak as it should.
pub(super) async fn proxy_header(
    stream: &mut (impl AsyncRead + Unpin),
    peer: ClientAddress,
    listener: &Arc<ListenerShared>,
) -> Option<ClientAddress> {
    let mut phase = listener.phase();
    let read = tokio::time::timeout(listener.options.header_timeout, read_header(stream));
    let source = tokio::select! {
        read = read => read.unwrap_or(Err("its PROXY header did not come in time")),
        _ = phase.wait_for(|phase| *phase != StopPhase::Serving) => return None,
    };
    match source {
        Ok(Source::Client(client)) => Some(client),
        Ok(Source::Peer) => Some(peer),
        Err(reason) => {
            listener.refuses_proxy(peer, reason);
            None
        }
    }
}

/// Reads no byte beyond the header. A version 1 line is read to its end byte by byte, some tens of reads of a buffer
/// that the kernel has already; version 2 takes two.
async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> Result<Source, &'static str> {
    let mut header = Vec::with_capacity(64);
    loop {
        let missing = match parse(&header) {
            Parsed::Header { source, .. } => return Ok(source),
            Parsed::Incomplete { missing } => missing,
            Parsed::Invalid => return Err("it began without a sound PROXY header"),
        };
        debug_assert!(header.len() + missing <= LONGEST);
        let read = stream.take(missing as u64).read_buf(&mut header).await;
        if !matches!(read, Ok(length) if length > 0) {
            return Err("it ended within its PROXY header");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[tokio::test]
    async fn what_follows_a_header_is_left_to_be_read() {
        let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f".to_vec();
        v2.extend([192, 0, 2, 1, 5, 6, 7, 8, 0, 1, 0, 2, 4, 0, 0]);
        for header in [b"PROXY TCP4 192.0.2.1 5.6.7.8 1 2\r\n".to_vec(), v2] {
            let bytes = [header.as_slice(), b"GET"].concat();
            let mut stream = bytes.as_slice();
            let client: IpAddr = "192.0.2.1".parse().expect("an address");
            let source = read_header(&mut stream).await;
            assert_eq!(source, Ok(Source::Client(client.into())));
            assert_eq!(stream, b"GET");
            for cut in 0..header.len() {
                assert!(read_header(&mut &bytes[..cut]).await.is_err());
            }
        }
    }
}
