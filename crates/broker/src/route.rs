//! Routes that messages take without a worker.

use crate::name::ChannelName;

/// Where the messages of a socket go instead of to its worker, which hears of none of them. They go out as they came,
/// text as text and bytes as bytes. A message takes the route that its socket has when it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NativeRoute {
    /// Each back to its sender.
    Echo,
    /// Each to the subscribers that a channel has at that moment, if the sender is one of them. What a sender says that is
    /// not is left out, and counted in [`Drops::not_subscribed`](crate::stats::Drops::not_subscribed).
    Relay {
        /// The channel.
        channel: ChannelName,
        /// The sender gets it too.
        echo: bool,
    },
}
