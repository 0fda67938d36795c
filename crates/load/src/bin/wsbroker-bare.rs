//! A server that makes the system calls which the benchmark's sockets need, and hardly anything else: about what is left
//! of a server's CPU time if its own work is taken away, to be compared with.
//!
//! It reads each socket once for each event into one buffer on the stack, looks for no more than a handshake's key and a
//! frame's length, and takes a read for a whole handshake or a whole message of up to 125 bytes, with nothing behind it
//! before it is answered, which is what this benchmark sends. It is no server for anybody else.

#[cfg(target_os = "linux")]
mod server {
    use std::io::{self, Read, Write};
    use std::os::fd::AsRawFd;

    use mio::net::{TcpListener, TcpStream};
    use mio::unix::SourceFd;
    use mio::{Events, Interest, Poll, Token};
    use socket2::SockRef;
    use wsbroker_engine::codec::accept_key;

    const LISTENER: Token = Token(usize::MAX);
    const STDIN: Token = Token(usize::MAX - 1);

    /// What a masked frame has before its data, and one of a server.
    const CLIENT_HEADER: usize = 6;
    const SERVER_HEADER: usize = 2;

    const CLOSE: u8 = 8;

    struct Socket {
        stream: TcpStream,
        is_open: bool,
    }

    /// Serves until stdin ends.
    pub(crate) fn run() -> io::Result<()> {
        let mut poll = Poll::new()?;
        let mut listener = TcpListener::bind("127.0.0.1:0".parse().expect("an address"))?;
        // What it accepts inherits this.
        SockRef::from(&listener).set_tcp_nodelay(true)?;
        let registry = poll.registry().try_clone()?;
        registry.register(&mut listener, LISTENER, Interest::READABLE)?;
        let stdin = io::stdin().as_raw_fd();
        registry.register(&mut SourceFd(&stdin), STDIN, Interest::READABLE)?;
        let about = serde_json::json!({
            "port": listener.local_addr()?.port(),
            "version": env!("CARGO_PKG_VERSION"),
            "options": {},
        });
        writeln!(io::stdout(), "{about}")?;

        let mut sockets: Vec<Option<Socket>> = Vec::new();
        let mut events = Events::with_capacity(1024);
        loop {
            poll.poll(&mut events, None)?;
            for event in &events {
                match event.token() {
                    STDIN => return Ok(()),
                    LISTENER => {
                        while let Ok((mut stream, _)) = listener.accept() {
                            let at = stream.as_raw_fd() as usize;
                            registry.register(&mut stream, Token(at), Interest::READABLE)?;
                            sockets.resize_with(sockets.len().max(at + 1), || None);
                            sockets[at] = Some(Socket {
                                stream,
                                is_open: false,
                            });
                        }
                    }
                    Token(at) => {
                        let goes_on = sockets[at].as_mut().is_some_and(answer);
                        if !goes_on {
                            sockets[at] = None;
                        }
                    }
                }
            }
        }
    }

    /// One read and one write; `false`: the connection is to be closed.
    fn answer(socket: &mut Socket) -> bool {
        let mut bytes = [0; 4096];
        let length = match socket.stream.read(&mut bytes) {
            Ok(length) => length,
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        };
        let bytes = &mut bytes[..length];
        if !socket.is_open {
            socket.is_open = true;
            return handshake(bytes).is_some_and(|answer| send(&mut socket.stream, &answer));
        }
        match echo(bytes) {
            Some(frame) => send(&mut socket.stream, frame) && frame[0] & 0x0F != CLOSE,
            None => false,
        }
    }

    fn send(stream: &mut TcpStream, bytes: &[u8]) -> bool {
        stream.write(bytes).is_ok_and(|sent| sent == bytes.len())
    }

    fn handshake(request: &[u8]) -> Option<Vec<u8>> {
        const NAME: &str = "sec-websocket-key: ";
        let request = str::from_utf8(request).ok()?;
        let mut lines = request.split("\r\n");
        let key = lines.find_map(|line| {
            let (name, value) = line.split_at_checked(NAME.len())?;
            name.eq_ignore_ascii_case(NAME).then_some(value)
        })?;
        let accept = accept_key(key);
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade";
        let mut answer = format!("{head}\r\nSec-WebSocket-Accept: ").into_bytes();
        answer.extend_from_slice(accept.as_bytes());
        answer.extend_from_slice(b"\r\n\r\n");
        Some(answer)
    }

    /// The frame of a client as a server's, in the same place.
    fn echo(frame: &mut [u8]) -> Option<&[u8]> {
        let length = usize::from(*frame.get(1)? & 0x7F);
        if frame.len() != CLIENT_HEADER + length || length > 125 {
            return None;
        }
        let mask = *frame[SERVER_HEADER..].first_chunk::<4>()?;
        for (at, byte) in frame[CLIENT_HEADER..].iter_mut().enumerate() {
            *byte ^= mask[at % 4];
        }
        let start = CLIENT_HEADER - SERVER_HEADER;
        frame[start] = frame[0];
        frame[start + 1] = length as u8;
        Some(&frame[start..])
    }
}

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    server::run()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("wsbroker-bare: it is part of the benchmark, which runs on Linux");
    std::process::exit(1);
}
