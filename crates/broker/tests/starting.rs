//! Starts that fail: they end, and leave nothing behind.

mod support;

#[cfg(target_os = "linux")]
use std::sync::mpsc;

#[cfg(target_os = "linux")]
use support::{DEADLINE, HTTP, ManualWorker};
#[cfg(target_os = "linux")]
use wsbroker_engine::{BindAddress, ListenOptions};

// Elsewhere a full listener refuses, as if there were none.
#[cfg(target_os = "linux")]
#[test]
fn an_address_whose_listener_accepts_nobody_is_in_use() {
    use socket2::{Domain, SockAddr, Socket, Type};

    let folder = std::env::temp_dir().join(format!("wsbroker-full-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("socket");
    let address = SockAddr::unix(&path).expect("a short path");
    let socket = || Socket::new(Domain::UNIX, Type::STREAM, None).expect("a descriptor");
    let deaf = socket();
    deaf.bind(&address).expect("a free path");
    deaf.listen(1).expect("it listens");
    let mut waiting = Vec::new();
    loop {
        let client = socket();
        client.set_nonblocking(true).expect("an option");
        if client.connect(&address).is_err() {
            break; // no more places
        }
        waiting.push(client);
    }

    let (tell, told) = mpsc::channel();
    let bind: BindAddress = format!("unix:{}", path.display()).parse().expect("a path");
    std::thread::spawn(move || {
        let broker = support::broker();
        let _worker = ManualWorker::register(&broker, HTTP);
        let refused = broker.listen(ListenOptions::new(bind)).err();
        tell.send(refused.map(|error| error.code()))
    });
    let refused = told.recv_timeout(DEADLINE);
    let _ = std::fs::remove_file(&path);
    let _ = std::fs::remove_dir(folder);
    assert_eq!(refused, Ok(Some("WSB_ADDRESS_IN_USE")));
}
