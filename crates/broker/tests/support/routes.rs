//! Sockets whose messages take a native route.

use wsbroker_engine::codec::Opcode;
use wsbroker_engine::{NativeRoute, SocketId};

use super::{Client, Server, channel, masked};

pub(crate) fn relay(name: &str) -> Option<NativeRoute> {
    Some(NativeRoute::Relay {
        channel: channel(name),
        echo: false,
    })
}

pub(crate) fn relay_and_echo(name: &str) -> Option<NativeRoute> {
    Some(NativeRoute::Relay {
        channel: channel(name),
        echo: true,
    })
}

/// So many sockets in a channel, which relay to it; they are dealt to both shards.
pub(crate) fn room(server: &Server, name: &str, count: usize) -> Vec<(Client, SocketId)> {
    let members: Vec<_> = (0..count).map(|_| server.open()).collect();
    for (_, id) in &members {
        assert_eq!(server.broker.subscribe(*id, &channel(name)), Ok(true));
        assert!(server.broker.set_message_route(*id, relay(name)));
    }
    members
}

pub(crate) fn numbered(range: std::ops::Range<u32>) -> Vec<u8> {
    range
        .flat_map(|n| masked(Opcode::Text, n.to_string().as_bytes()))
        .collect()
}

pub(crate) fn assert_numbers(client: &mut Client, range: std::ops::Range<u32>) {
    for n in range {
        assert_eq!(client.text(), n.to_string());
    }
}

pub(crate) fn messages_of(server: &Server, id: SocketId) -> usize {
    server.journal.messages_of(id, 0).len()
}
