//! `Sec-WebSocket-Extensions`: the answer to any offers says what was agreed on, and nothing that was not offered.

use super::Choices;
use crate::codec::{DeflatePolicy, MAX_WINDOW_BITS, MIN_WINDOW_BITS, PerMessageDeflate, negotiate};

/// The first byte is the server's policy; the rest are values of the header, a line each.
pub fn extensions(data: &[u8]) {
    let mut choices = Choices(data);
    let byte = choices.byte();
    let policy = DeflatePolicy {
        window_bits: MIN_WINDOW_BITS + byte % 7,
        takeover: byte & 0x80 == 0,
    };
    let Ok(text) = std::str::from_utf8(choices.0) else {
        return;
    };
    let Ok(Some(accepted)) = negotiate(text.split('\n'), policy) else {
        return;
    };
    check_answer(&accepted.response, accepted.deflate, policy, text);
    let again = negotiate([accepted.response.as_str()], policy);
    assert!(
        matches!(again, Ok(Some(_))),
        "the answer is a sound offer: {}",
        accepted.response
    );
}

fn check_answer(answer: &str, deflate: PerMessageDeflate, policy: DeflatePolicy, offers: &str) {
    let mut parameters: Vec<&str> = answer.split("; ").collect();
    assert_eq!(parameters.remove(0), "permessage-deflate");
    let mut take = |name: &str| {
        let at = parameters
            .iter()
            .position(|parameter| parameter.split('=').next() == Some(name))?;
        let value = parameters.remove(at).split('=').nth(1);
        Some(value.map(|bits| bits.parse::<u8>().expect("a number")))
    };
    let server_takeover = take("server_no_context_takeover").is_none();
    let client_takeover = take("client_no_context_takeover").is_none();
    let server_bits = take("server_max_window_bits").flatten();
    let client_bits = take("client_max_window_bits").flatten();
    assert!(parameters.is_empty(), "unknown or twice: {answer}");

    assert_eq!(deflate.server.takeover(), server_takeover);
    assert_eq!(deflate.client.takeover(), client_takeover);
    assert!(policy.takeover || (!server_takeover && !client_takeover));
    let sent_bits = deflate.server.window_bits();
    assert_eq!(sent_bits, server_bits.unwrap_or(MAX_WINDOW_BITS));
    assert!((MIN_WINDOW_BITS..=policy.window_bits).contains(&sent_bits));
    // What the client may send is within what is kept to inflate it.
    let received_bits = deflate.client.window_bits();
    assert!((MIN_WINDOW_BITS..=MAX_WINDOW_BITS).contains(&received_bits));
    if let Some(bits) = client_bits {
        assert_eq!(bits, received_bits);
        assert!(offers.contains("client_max_window_bits"), "not offered");
    }
    assert!(offers.contains("permessage-deflate"));
}
