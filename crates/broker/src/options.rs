//! What a listener is told, with the defaults and their reasons.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::address::BindAddress;
use crate::client::{ProxyProtocol, TrustProxy};
use crate::codec::{MAX_WINDOW_BITS, MIN_WINDOW_BITS};
use crate::compression::Compression;
use crate::error::StartError;
use crate::http::origin::Origins;
use crate::http::subprotocol::Subprotocol;
use crate::limits::Limits;

/// The largest message or body that can be asked for, in bytes: the lengths in a batch are words of 32 bits.
const LARGEST: usize = 1 << 30;

/// The sizes of a request head that can be asked for, in bytes. A browser's handshake takes some hundred.
const HEAD_SIZES: RangeInclusive<usize> = 256..=1 << 20;

/// The numbers of headers that can be asked for.
const HEADER_COUNTS: RangeInclusive<usize> = 1..=1000;

/// How many subprotocols a listener may speak; each handshake is compared with all of them.
const MAX_PROTOCOLS: usize = 64;

/// The longest time that can be asked for, some 24 days. A shard counts milliseconds in words of 32 bits, and so do events,
/// and timers in JavaScript take 31 of them.
const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

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

/// The options of one listener. Times are from 1 ms to 2^31 - 1 ms.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Where to listen.
    pub bind: BindAddress,
    /// The largest message taken from a peer, in bytes; over it the socket is closed with 1009.
    pub max_message_size: usize,
    /// The largest request body, in bytes; over it the answer is 413.
    pub max_body_size: usize,
    /// The largest request head, in bytes, request line included; over it the answer is 431.
    pub max_header_size: usize,
    /// The most headers of a request; over it the answer is 431.
    pub max_headers: usize,
    /// How many bytes may wait for one socket. A socket for which nothing waits takes one message of any size.
    pub max_backpressure: usize,
    /// How long a peer may take to send a request's head: from the accept to the end of the first one, from the first
    /// byte on for a later one. After it the answer is 408, if anything has come.
    pub header_timeout: Duration,
    /// How long a peer may take to send a request's body; after it the answer is 408.
    pub body_timeout: Duration,
    /// How many bytes of a body have to come in a second, on average and after the first 5 s; below it the answer is
    /// 408. `None`: any number.
    pub min_body_rate: Option<NonZeroU32>,
    /// How long a worker may take to answer a request or an upgrade; after it the answer is 504.
    pub request_timeout: Duration,
    /// How long an HTTP answer may wait for a peer that takes nothing of it; after it the connection is cut.
    pub write_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub keep_alive_timeout: Duration,
    /// The subprotocols that this server speaks, best first. The first that a client offers is chosen where the worker
    /// that decides on the upgrade names none; without a common one the socket has none.
    pub protocols: Vec<Subprotocol>,
    /// Whose pages may open sockets.
    pub origins: Origins,
    /// How messages are compressed for clients that offer it; `None`, the default: not at all. It costs a processor more
    /// than everything else that is done for a message.
    pub compression: Option<Compression>,
    /// `None` turns pings and the idle timeout off.
    pub heartbeat: Option<Heartbeat>,
    /// What happens beyond `max_backpressure`.
    pub slow_consumer: SlowConsumer,
    /// How long a handler of a socket's event may take, which each event tells its worker: the broker itself calls no
    /// handlers. `None`: as long as it likes. Whole milliseconds.
    pub handler_timeout: Option<Duration>,
    /// How long a peer may take to answer a close frame before the connection is cut.
    pub close_timeout: Duration,
    /// What one client, one socket, and all of them together, may take. The default is no limit.
    pub limits: Limits,
    /// Which proxies are believed when they name the client. The default is none.
    pub trust_proxy: TrustProxy,
    /// Who has to begin a connection with a PROXY header. The default is nobody.
    pub proxy_protocol: ProxyProtocol,
    /// How many I/O threads the broker is to have, 1 to 256. The first listener decides for all; a later one that asks
    /// for another number is refused. `None` leaves it to [`BrokerOptions`](crate::BrokerOptions).
    pub io_threads: Option<usize>,
}

impl ListenOptions {
    /// The defaults, for this address.
    #[must_use]
    pub fn new(bind: BindAddress) -> Self {
        Self {
            bind,
            max_message_size: 1 << 20,
            max_body_size: 10 << 20,
            max_header_size: 32 << 10,
            max_headers: 100,
            max_backpressure: 1 << 20,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            min_body_rate: NonZeroU32::new(240),
            request_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            // Above the 60 s after which common load balancers give a connection up: whoever sends a request on one
            // that its server is just ending has to answer for it.
            keep_alive_timeout: Duration::from_secs(65),
            protocols: Vec::new(),
            origins: Origins::Any,
            compression: None,
            heartbeat: Some(Heartbeat::default()),
            slow_consumer: SlowConsumer::default(),
            handler_timeout: None,
            close_timeout: Duration::from_secs(5),
            limits: Limits::default(),
            trust_proxy: TrustProxy::default(),
            proxy_protocol: ProxyProtocol::default(),
            io_threads: None,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), StartError> {
        self.validate_sizes()?;
        self.validate_times()?;
        self.validate_handshake()?;
        self.validate_sockets()?;
        self.validate_limits()
    }

    fn validate_sizes(&self) -> Result<(), StartError> {
        let size = |name, value: usize| {
            if (1..=LARGEST).contains(&value) {
                return Ok(());
            }
            invalid(name, "a size of 1 byte to 1 GiB")
        };
        size("maxMessageSize", self.max_message_size)?;
        // A body of no byte at all is a fine limit.
        size("maxBodySize", self.max_body_size.max(1))?;
        if !HEAD_SIZES.contains(&self.max_header_size) {
            return invalid("maxHeaderSize", "a size of 256 bytes to 1 MiB");
        }
        if !HEADER_COUNTS.contains(&self.max_headers) {
            return invalid("maxHeaders", "a number from 1 to 1000");
        }
        if self.max_backpressure == 0 {
            return invalid("maxBackpressure", "a size of at least 1 byte");
        }
        Ok(())
    }

    fn validate_times(&self) -> Result<(), StartError> {
        lasting("headerTimeout", self.header_timeout)?;
        lasting("bodyTimeout", self.body_timeout)?;
        lasting("requestTimeout", self.request_timeout)?;
        lasting("writeTimeout", self.write_timeout)?;
        lasting("keepAliveTimeout", self.keep_alive_timeout)
    }

    fn validate_handshake(&self) -> Result<(), StartError> {
        let spoken = &self.protocols;
        let is_repeated = |n: usize| spoken[..n].contains(&spoken[n]);
        if spoken.len() > MAX_PROTOCOLS || (0..spoken.len()).any(is_repeated) {
            return invalid("protocols", "at most 64 subprotocols, each of them once");
        }
        if matches!(&self.origins, Origins::List(list) if list.is_empty()) {
            return invalid("origins", "at least one origin");
        }
        Ok(())
    }

    fn validate_sockets(&self) -> Result<(), StartError> {
        if let Some(compression) = self.compression {
            if !(1..=9).contains(&compression.level) {
                return invalid("compression.level", "a level from 1 to 9");
            }
            if !(MIN_WINDOW_BITS..=MAX_WINDOW_BITS).contains(&compression.window_bits) {
                return invalid("compression.windowBits", "a power of two from 9 to 15");
            }
        }
        if let Some(heartbeat) = self.heartbeat {
            lasting("heartbeat.interval", heartbeat.interval)?;
            lasting("heartbeat.timeout", heartbeat.timeout)?;
            if heartbeat.timeout <= heartbeat.interval {
                return invalid(
                    "heartbeat.timeout",
                    "a time longer than heartbeat.interval, so that a ping can be answered",
                );
            }
        }
        if let Some(timeout) = self.handler_timeout {
            lasting("handlerTimeout", timeout)?;
        }
        lasting("closeTimeout", self.close_timeout)
    }

    fn validate_limits(&self) -> Result<(), StartError> {
        let limits = &self.limits;
        for (name, limit) in [
            ("limits.connectionsPerIp", limits.connections_per_ip),
            ("limits.connections", limits.connections),
            ("limits.handshakes", limits.handshakes),
            ("limits.channelsPerSocket", limits.socket.channels),
        ] {
            if limit == Some(0) {
                return invalid(name, "a number of at least 1, or none");
            }
        }
        Ok(())
    }

    /// How long a handler may take in milliseconds, 0 for any time.
    pub(crate) fn handler_milliseconds(&self) -> u32 {
        self.handler_timeout
            .map_or(0, |timeout| timeout.as_millis().max(1) as u32)
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

fn lasting(name: &'static str, value: Duration) -> Result<(), StartError> {
    if value.is_zero() || value > LONGEST {
        return invalid(name, "a time of at least 1 ms and at most 2^31 - 1 ms");
    }
    Ok(())
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

    fn compressed(options: &mut ListenOptions) -> &mut Compression {
        options.compression.get_or_insert_default()
    }

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
            (refused(|o| compressed(o).level = 0), "compression.level"),
            (refused(|o| compressed(o).level = 10), "compression.level"),
            (
                refused(|o| compressed(o).window_bits = 8),
                "compression.windowBits",
            ),
            (
                refused(|o| compressed(o).window_bits = 16),
                "compression.windowBits",
            ),
            (
                refused(|o| o.close_timeout = Duration::ZERO),
                "closeTimeout",
            ),
            (
                refused(|o| o.limits.socket.channels = Some(0)),
                "limits.channelsPerSocket",
            ),
            (
                refused(|o| o.handler_timeout = Some(Duration::ZERO)),
                "handlerTimeout",
            ),
            (
                refused(|o| o.handler_timeout = Some(Duration::from_secs(1 << 31))),
                "handlerTimeout",
            ),
            (
                refused(|o| o.keep_alive_timeout = Duration::ZERO),
                "keepAliveTimeout",
            ),
            (
                refused(|o| o.write_timeout = Duration::ZERO),
                "writeTimeout",
            ),
            (refused(|o| o.max_header_size = 255), "maxHeaderSize"),
            (refused(|o| o.max_headers = 1001), "maxHeaders"),
            (
                refused(|o| {
                    o.protocols = ["a", "b", "a"].map(|p| p.parse().expect("a token")).into()
                }),
                "protocols",
            ),
            (refused(|o| o.origins = Origins::List([].into())), "origins"),
            (
                refused(|o| o.limits.handshakes = Some(0)),
                "limits.handshakes",
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
    fn a_time_without_an_end_is_refused_wherever_it_stands() {
        type Field = fn(&mut ListenOptions) -> &mut Duration;
        let times: [(&str, Field); 9] = [
            ("headerTimeout", |o| &mut o.header_timeout),
            ("bodyTimeout", |o| &mut o.body_timeout),
            ("requestTimeout", |o| &mut o.request_timeout),
            ("writeTimeout", |o| &mut o.write_timeout),
            ("keepAliveTimeout", |o| &mut o.keep_alive_timeout),
            ("closeTimeout", |o| &mut o.close_timeout),
            ("handlerTimeout", |o| {
                o.handler_timeout.get_or_insert(LONGEST)
            }),
            ("heartbeat.interval", |o| {
                &mut o.heartbeat.get_or_insert_default().interval
            }),
            ("heartbeat.timeout", |o| {
                &mut o.heartbeat.get_or_insert_default().timeout
            }),
        ];
        for (name, time) in times {
            let mut options = ListenOptions::new(BindAddress::Inet {
                host: None,
                port: 0,
            });
            for endless in [Duration::MAX, LONGEST + Duration::from_nanos(1)] {
                *time(&mut options) = endless;
                let said = options.validate().expect_err("refused").to_string();
                assert!(said.starts_with(&format!("{name}: ")), "{name}: {said}");
            }
            // Silence has to last longer than the interval.
            *time(&mut options) = LONGEST;
            assert_eq!(options.validate().is_ok(), name != "heartbeat.interval");
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
