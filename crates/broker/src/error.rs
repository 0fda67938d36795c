//! Why a listener could not start.

use std::io;

/// Why [`Broker::listen`](crate::Broker::listen) refused. Nothing is left half-started.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// An option holds a value that makes no sense.
    InvalidArgument {
        /// The option's name as applications write it.
        name: &'static str,
        /// What is expected instead.
        expected: String,
    },
    /// The address cannot be parsed or its host does not resolve.
    InvalidAddress {
        /// The address as given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody listens there already.
    AddressInUse {
        /// The address as given.
        address: String,
    },
    /// The process may not listen there: a port below 1024, or a directory without write permission.
    PermissionDenied {
        /// The address as given.
        address: String,
    },
    /// Events would reach nobody.
    NoWorker,
    /// This platform cannot do it.
    NotSupported {
        /// What cannot be done.
        what: String,
    },
    /// The operating system refused for another reason.
    Io {
        /// What was tried.
        action: String,
        /// What the operating system said.
        source: io::Error,
    },
}

impl StartError {
    /// The stable code applications compare with.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidArgument { .. } => "WSB_INVALID_ARGUMENT",
            Self::InvalidAddress { .. } => "WSB_INVALID_ADDRESS",
            Self::AddressInUse { .. } => "WSB_ADDRESS_IN_USE",
            Self::PermissionDenied { .. } => "WSB_PERMISSION_DENIED",
            Self::NoWorker => "WSB_NO_WORKER",
            Self::NotSupported { .. } => "WSB_NOT_SUPPORTED",
            Self::Io { .. } => "WSB_IO_ERROR",
        }
    }

    /// What the operating system said to a bind, in this crate's words.
    pub(crate) fn from_bind(address: &str, source: io::Error) -> Self {
        let address = address.to_owned();
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::AddressInUse { address },
            io::ErrorKind::PermissionDenied => Self::PermissionDenied { address },
            io::ErrorKind::AddrNotAvailable => Self::InvalidAddress {
                address,
                reason: "no network interface of this machine has it".into(),
            },
            _ => Self::Io {
                action: format!("listen on {address}"),
                source,
            },
        }
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InvalidArgument { name, expected } => write!(f, "{name}: expected {expected}"),
            Self::InvalidAddress { address, reason } => write!(
                f,
                "bind: cannot use the address '{address}': {reason}; \
                 expected 'host:port', '[ipv6]:port', ':port' or 'unix:/path'"
            ),
            Self::AddressInUse { address } => write!(
                f,
                "bind: {address} is in use; stop the other server or choose another port (0 picks a free one)"
            ),
            Self::PermissionDenied { address } => write!(
                f,
                "bind: this process may not listen on {address}; \
                 ports below 1024 need a privilege, a socket file needs a writable directory"
            ),
            Self::NoWorker => write!(
                f,
                "no worker is registered; call registerWorkerThread() before start()"
            ),
            Self::NotSupported { what } => write!(f, "{what} is not supported on this platform"),
            Self::Io { action, source } => write!(f, "cannot {action}: {source}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
