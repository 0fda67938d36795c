//! From an address to a socket that listens.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

#[cfg(unix)]
use socket2::SockAddr;
use socket2::{Domain, Protocol, Socket, Type};

use crate::address::{BindAddress, ListenAddress};
use crate::error::StartError;

/// Connections the kernel keeps for us while we are busy; the system's own limit may be lower.
const BACKLOG: i32 = 4096;

/// A socket that listens and is not yet part of a shard.
pub(crate) enum Bound {
    Tcp(std::net::TcpListener),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener, SocketFile),
}

/// Binds without starting anything.
pub(crate) fn bind(address: &BindAddress) -> Result<Bound, StartError> {
    if let BindAddress::Unix(path) = address {
        return bind_unix(path, &address.to_string());
    }
    let mut unusable = None;
    for candidate in address.resolve()? {
        match bind_tcp(candidate) {
            Ok(listener) => return Ok(Bound::Tcp(listener)),
            // Only a machine without this protocol, or this address, makes the next one worth a try.
            Err(error) if is_unusable(&error) => unusable = Some(error),
            Err(error) => return Err(StartError::from_bind(&address.to_string(), error)),
        }
    }
    let error = unusable.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
    Err(StartError::from_bind(&address.to_string(), error))
}

fn is_unusable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
    ) || error.raw_os_error() == Some(AF_NOT_SUPPORTED)
}

/// "Address family not supported by protocol": a machine without IPv6.
#[cfg(any(target_os = "linux", target_os = "android"))]
const AF_NOT_SUPPORTED: i32 = 97;
#[cfg(target_vendor = "apple")]
const AF_NOT_SUPPORTED: i32 = 47;
#[cfg(windows)]
const AF_NOT_SUPPORTED: i32 = 10047;

fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // On Windows the option would let two servers share a port; elsewhere it lets a restart have it back at once.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    if let SocketAddr::V6(v6) = address {
        socket.set_only_v6(!v6.ip().is_unspecified())?;
    }
    // Events are small and wait for nobody. Here what is accepted inherits it, which spares a call for each.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(unix)]
fn bind_unix(path: &Path, address: &str) -> Result<Bound, StartError> {
    use std::os::unix::fs::FileTypeExt;
    use std::os::unix::net::UnixListener;

    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    if is_socket && is_forsaken(path) {
        // Left behind by a process that did not end in order.
        let _ = std::fs::remove_file(path);
    }
    let failed = |error| StartError::from_bind(address, error);
    let listener = UnixListener::bind(path).map_err(failed)?;
    let file = SocketFile::at(path).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(Bound::Unix(listener, file))
}

/// Whether nobody listens there. It is not waited for a place: a listener that does not come to accept is one all the same.
#[cfg(unix)]
fn is_forsaken(path: &Path) -> bool {
    let connect = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    connect().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// The file of a Unix socket, which a bind creates and nothing but us removes.
#[cfg(unix)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode: whoever replaced the file meanwhile keeps theirs.
    identity: (u64, u64),
}

#[cfg(unix)]
impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: Self::identity_of(path)?,
        })
    }

    fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
        use std::os::unix::fs::MetadataExt;

        let metadata = std::fs::symlink_metadata(path)?;
        Ok((metadata.dev(), metadata.ino()))
    }
}

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        if Self::identity_of(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(not(unix))]
fn bind_unix(_: &Path, _: &str) -> Result<Bound, StartError> {
    Err(StartError::NotSupported {
        what: "bind: a Unix socket".to_owned(),
    })
}

impl Bound {
    pub(crate) fn address(&self) -> Result<ListenAddress, StartError> {
        let address = match self {
            Self::Tcp(listener) => listener.local_addr().map(ListenAddress::Inet),
            #[cfg(unix)]
            Self::Unix(_, file) => Ok(ListenAddress::Unix(file.path.clone())),
        };
        address.map_err(|source| StartError::Io {
            action: "read the bound address".to_owned(),
            source,
        })
    }
}
