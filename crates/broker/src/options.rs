//! What a listener is told, with the defaults and their reasons.

use std::time::Duration;

use crate::address::BindAddress;
use crate::client::{ProxyProtocol, TrustProxy};
use crate::error::StartError;
use crate::limits::Limits;

/// The largest message or body that can be asked for, in bytes: the lengths in a batch are words of 32 bits.
const LARGEST: usize = 1 << 30;

/// What happens to a socket whose peer reads too slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowConsumer {
    /// Close it with 1013 (try again later). A peer that misses messages without knowing is worse off.
    #[default]
    Close,
    /// Leave that message out for that socket, and count it.
    Drop,
}

/// When silence is answered with a ping, and when it ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Silence after which a ping is sent.
    pub interval: Duration,
    /// Silence after which the peer counts as gone.
    pub timeout: Duration,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(45), // below the 60 s at which common proxies cut a silent connection
            timeout: Duration::from_secs(120), // leaves more than a minute for the answer
        }
    }
}

/// The options of one listener.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Where to listen.
    pub bind: BindAddress,
    /// The largest message taken from a peer, in bytes; over it the socket is closed with 1009.
    pub max_message_size: usize,
    /// The largest request body, in bytes; over it the answer is 413.
    pub max_body_size: usize,
    /// How many bytes may wait for one socket. A socket for which nothing waits takes one message of any size.
    pub max_backpressure: usize,
    /// What happens beyond `max_backpressure`.
    pub slow_consumer: SlowConsumer,
    /// `None` turns pings and the idle timeout off.
    pub heartbeat: Option<Heartbeat>,
    /// How long a worker may take to answer a request or an upgrade; after it the answer is 504.
    pub request_timeout: Duration,
    /// How long a peer may take to answer a close frame before the connection is cut.
    pub close_timeout: Duration,
    /// How long a peer may take to send a request's head.
    pub header_timeout: Duration,
    /// How long a peer may take to send a request's body; after it the answer is 408.
    pub body_timeout: Duration,
    /// How many I/O threads the broker is to have, 1 to 256. The first listener decides for all; a later one that asks
    /// for another number is refused. `None` leaves it to [`BrokerOptions`](crate::BrokerOptions).
    pub io_threads: Option<usize>,
    /// What one client, and all of them together, may take. The default is no limit.
    pub limits: Limits,
    /// Which proxies are believed when they name the client. The default is none.
    pub trust_proxy: TrustProxy,
    /// Who has to begin a connection with a PROXY header. The default is nobody.
    pub proxy_protocol: ProxyProtocol,
}

impl ListenOptions {
    /// The defaults, for this address.
    #[must_use]
    pub fn new(bind: BindAddress) -> Self {
        Self {
            bind,
            max_message_size: 1 << 20,
            max_body_size: 10 << 20,
            max_backpressure: 1 << 20,
            slow_consumer: SlowConsumer::default(),
            heartbeat: Some(Heartbeat::default()),
            request_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            io_threads: None,
            limits: Limits::default(),
            trust_proxy: TrustProxy::default(),
            proxy_protocol: ProxyProtocol::default(),
        }
    }

    pub(crate) fn validate(&self) -> Result<(), StartError> {
        let size = |name, value: usize| {
            if (1..=LARGEST).contains(&value) {
                return Ok(());
            }
            invalid(name, "a size of 1 byte to 1 GiB")
        };
        size("maxMessageSize", self.max_message_size)?;
        // A body of no byte at all is a fine limit.
        size("maxBodySize", self.max_body_size.max(1))?;
        if self.max_backpressure == 0 {
            return invalid("maxBackpressure", "a size of at least 1 byte");
        }
        let limits = [
            ("limits.connections", self.limits.connections),
            ("limits.connectionsPerIp", self.limits.connections_per_ip),
        ];
        for (name, limit) in limits {
            if limit == Some(0) {
                return invalid(name, "a number of at least 1, or none");
            }
        }
        let lasting = |name, value: Duration| {
            if value.is_zero() {
                return invalid(name, "a time of at least 1 ms");
            }
            Ok(())
        };
        lasting("requestTimeout", self.request_timeout)?;
        lasting("closeTimeout", self.close_timeout)?;
        lasting("headerTimeout", self.header_timeout)?;
        lasting("bodyTimeout", self.body_timeout)?;
        if let Some(heartbeat) = self.heartbeat {
            lasting("heartbeat.interval", heartbeat.interval)?;
            if heartbeat.timeout <= heartbeat.interval {
                return invalid(
                    "heartbeat.timeout",
                    "a time longer than heartbeat.interval, so that a ping can be answered",
                );
            }
        }
        Ok(())
    }

    /// The shortest time that a sweep has to notice.
    pub(crate) fn shortest_deadline(&self) -> Duration {
        let mut shortest = self.request_timeout.min(self.close_timeout);
        if let Some(heartbeat) = self.heartbeat {
            shortest = shortest.min(heartbeat.interval).min(heartbeat.timeout);
        }
        shortest
    }
}

fn invalid(name: &'static str, expected: &str) -> Result<(), StartError> {
    Err(StartError::InvalidArgument {
        name,
        expected: expected.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senseless_values_are_refused_by_name() {
        let refused = |change: fn(&mut ListenOptions)| {
            let mut options = ListenOptions::new(BindAddress::Inet {
                host: None,
                port: 0,
            });
            change(&mut options);
            let error = options.validate().expect_err("a senseless value");
            assert_eq!(error.code(), "WSB_INVALID_ARGUMENT");
            error.to_string()
        };
        for (said, name) in [
            (refused(|o| o.max_message_size = 0), "maxMessageSize"),
            (
                refused(|o| o.max_message_size = LARGEST + 1),
                "maxMessageSize",
            ),
            (refused(|o| o.max_backpressure = 0), "maxBackpressure"),
            (
                refused(|o| o.limits.connections = Some(0)),
                "limits.connections",
            ),
            (
                refused(|o| o.limits.connections_per_ip = Some(0)),
                "limits.connectionsPerIp",
            ),
            (refused(|o| o.max_body_size = LARGEST + 1), "maxBodySize"),
            (
                refused(|o| o.close_timeout = Duration::ZERO),
                "closeTimeout",
            ),
            (
                refused(|o| {
                    let time = Duration::from_secs(1);
                    o.heartbeat = Some(Heartbeat {
                        interval: time,
                        timeout: time,
                    });
                }),
                "heartbeat.timeout",
            ),
        ] {
            assert!(said.starts_with(name), "{said}");
        }
    }

    #[test]
    fn the_defaults_and_a_body_limit_of_nothing_are_fine() {
        let mut options = ListenOptions::new(BindAddress::Inet {
            host: None,
            port: 0,
        });
        assert!(options.validate().is_ok());
        options.max_body_size = 0;
        assert!(options.validate().is_ok());
    }
}
