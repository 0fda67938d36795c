//! The engine without Node: a WebSocket echo server and one HTTP page, in one Rust thread beside the I/O threads.
//!
//! ```sh
//! cargo run --release --example echo            # or: -- 127.0.0.1:0
//! ```

#![expect(
    clippy::print_stdout,
    reason = "the address is what the program prints"
)]

use std::sync::Arc;

use bytes::Bytes;
use wsbroker_engine::{
    Broker, BrokerOptions, Event, Interest, ListenOptions, OutboundMessage, Response, ThreadWaker,
    Worker,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1);
    let bind = address.as_deref().unwrap_or("127.0.0.1:3000").parse()?;

    let broker = Broker::new(BrokerOptions::default());
    let interest = Interest {
        http: true,
        ..Interest::default()
    };
    let worker = broker.register_worker(interest, Arc::new(ThreadWaker::current()));
    let listener = broker.listen(ListenOptions::new(bind))?;
    println!("listening on http://{}", listener.address());

    loop {
        handle_batches(&broker, &worker);
        // A wake-up between the last look and this line is not lost: it makes `park` return at once.
        std::thread::park();
    }
}

fn handle_batches(broker: &Broker, worker: &Worker) {
    while let Some(batch) = worker.take() {
        wsbroker_engine::cork();
        for event in batch.events() {
            handle(broker, event);
        }
        wsbroker_engine::uncork();
    }
}

fn handle(broker: &Broker, event: Event<'_>) {
    match event {
        Event::Message {
            socket,
            payload,
            text,
            ..
        } => {
            let message = match std::str::from_utf8(payload) {
                Ok(payload) if text => OutboundMessage::text(payload),
                _ => OutboundMessage::binary(payload),
            };
            broker.send(socket, &message);
        }
        Event::Request { request, .. } => {
            let response = Response {
                status: 200,
                headers: Vec::new(),
                body: Bytes::from_static(b"connect with a WebSocket client\n"),
            };
            broker.respond(request, response);
        }
        _ => {}
    }
}
