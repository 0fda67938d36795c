//! What is answered to the offers of a client (RFC 7692 §5, §7.1).

use crate::codec::{DeflatePolicy, Direction, MalformedExtensions, PerMessageDeflate, negotiate};

const SHARED: DeflatePolicy = DeflatePolicy {
    window_bits: 15,
    takeover: false,
};
const DEDICATED: DeflatePolicy = DeflatePolicy {
    window_bits: 15,
    takeover: true,
};

fn small(policy: DeflatePolicy) -> DeflatePolicy {
    DeflatePolicy {
        window_bits: 11,
        ..policy
    }
}

/// The parameters of the answer, without the extension's name.
fn answer(offer: &str, policy: DeflatePolicy) -> Option<String> {
    let accepted = negotiate([offer], policy).expect("a list of extensions")?;
    let parameters = accepted.response.strip_prefix("permessage-deflate");
    let parameters = parameters.expect("the extension's name");
    Some(parameters.trim_start_matches("; ").to_owned())
}

fn agreed(offer: &str, policy: DeflatePolicy) -> PerMessageDeflate {
    let accepted = negotiate([offer], policy).expect("a list of extensions");
    accepted.expect("an offer that can be met").deflate
}

#[test]
fn every_parameter_is_answered_as_the_policy_wants() {
    const NO_TAKEOVER: &str = "server_no_context_takeover; client_no_context_takeover";
    for (offered, policy, expected) in [
        // Shared memory: no context in either direction, asked for or not.
        ("", SHARED, NO_TAKEOVER.to_owned()),
        (
            "; client_no_context_takeover",
            SHARED,
            NO_TAKEOVER.to_owned(),
        ),
        (
            "; server_no_context_takeover",
            SHARED,
            NO_TAKEOVER.to_owned(),
        ),
        ("; client_max_window_bits", SHARED, NO_TAKEOVER.to_owned()),
        (
            "; client_max_window_bits=9",
            small(SHARED),
            format!("{NO_TAKEOVER}; server_max_window_bits=11"),
        ),
        (
            "; server_max_window_bits=15",
            SHARED,
            format!("{NO_TAKEOVER}; server_max_window_bits=15"),
        ),
        (
            "; server_max_window_bits=9",
            SHARED,
            format!("{NO_TAKEOVER}; server_max_window_bits=9"),
        ),
        (
            "; server_max_window_bits=12",
            small(SHARED),
            format!("{NO_TAKEOVER}; server_max_window_bits=11"),
        ),
        (
            "; server_max_window_bits=10",
            small(SHARED),
            format!("{NO_TAKEOVER}; server_max_window_bits=10"),
        ),
        // Dedicated memory: what the client wants, within the windows.
        ("", DEDICATED, String::new()),
        (
            "; server_no_context_takeover",
            DEDICATED,
            "server_no_context_takeover".to_owned(),
        ),
        (
            "; client_no_context_takeover",
            DEDICATED,
            "client_no_context_takeover".to_owned(),
        ),
        (
            "; client_no_context_takeover; server_no_context_takeover",
            DEDICATED,
            NO_TAKEOVER.to_owned(),
        ),
        ("; client_max_window_bits", DEDICATED, String::new()),
        (
            "; client_max_window_bits",
            small(DEDICATED),
            "server_max_window_bits=11; client_max_window_bits=11".to_owned(),
        ),
        (
            "; client_max_window_bits=15",
            small(DEDICATED),
            "server_max_window_bits=11; client_max_window_bits=11".to_owned(),
        ),
        (
            "; client_max_window_bits=10",
            small(DEDICATED),
            "server_max_window_bits=11".to_owned(),
        ),
        ("; client_max_window_bits=8", DEDICATED, String::new()),
        // A client that has not offered it cannot be held to a window (§7.1.2.2).
        ("", small(DEDICATED), "server_max_window_bits=11".to_owned()),
        (
            "; client_no_context_takeover; client_max_window_bits",
            small(DEDICATED),
            "client_no_context_takeover; server_max_window_bits=11".to_owned(),
        ),
    ] {
        let offer = format!("permessage-deflate{offered}");
        assert_eq!(
            answer(&offer, policy),
            Some(expected),
            "{offer}, {policy:?}"
        );
    }
}

#[test]
fn what_was_agreed_on_is_what_was_answered() {
    for (policy, takeover) in [(DEDICATED, true), (SHARED, false)] {
        let both = Direction::new(15, takeover);
        let expected = PerMessageDeflate {
            server: both,
            client: both,
        };
        assert_eq!(agreed("permessage-deflate", policy), expected);
        assert_eq!((both.window(), both.takeover()), (32_768, takeover));
    }
    let offer = "permessage-deflate; server_no_context_takeover";
    let one = agreed(offer, DEDICATED);
    assert_eq!(
        (one.server.takeover(), one.client.takeover()),
        (false, true)
    );
    let offer = "permessage-deflate; server_max_window_bits=10; client_max_window_bits";
    let both = agreed(offer, small(DEDICATED));
    assert_eq!(
        (both.server.window_bits(), both.client.window_bits()),
        (10, 11)
    );
    // A hint is remembered though it needs no answer; zlib's 8 is a 9.
    for (hint, bits) in [(8, 9), (9, 9), (10, 10)] {
        let offer = format!("permessage-deflate; client_max_window_bits={hint}");
        assert_eq!(agreed(&offer, DEDICATED).client.window_bits(), bits);
    }
}

#[test]
fn an_offer_that_cannot_be_met_is_declined() {
    for offer in [
        "",
        " , ,",
        "x-webkit-deflate-frame",
        "permessage-bzip2; server_max_window_bits=10",
        "permessage-deflate; unknown",
        "permessage-deflate; unknown=1",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover=\"true\"",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=7",
        // No compressor of zlib's kind has a window of 256 bytes.
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=09",
        "permessage-deflate; server_max_window_bits=+9",
        "permessage-deflate; server_max_window_bits=1e1",
        "permessage-deflate; server_max_window_bits=99999999999999999999",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=16",
        "permessage-deflate; client_max_window_bits=x",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
        "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
    ] {
        assert_eq!(negotiate([offer], DEDICATED), Ok(None), "{offer}");
    }
    assert_eq!(negotiate([], SHARED), Ok(None));
}

#[test]
fn the_first_offer_that_can_be_met_wins() {
    let chosen = |values: &[&str]| {
        let accepted = negotiate(values.iter().copied(), DEDICATED).expect("sound");
        accepted.map(|accepted| accepted.deflate.server.window_bits())
    };
    for values in [
        &["permessage-deflate; server_max_window_bits=10, permessage-deflate"][..],
        &[
            "permessage-deflate; server_max_window_bits=10",
            "permessage-deflate",
        ],
        &[
            "permessage-deflate; server_max_window_bits=8, permessage-deflate;server_max_window_bits=10",
        ],
        &[
            "foo, bar; baz=2",
            "permessage-deflate; unknown, permessage-deflate; server_max_window_bits=10",
        ],
    ] {
        assert_eq!(chosen(values), Some(10), "{values:?}");
    }
}

#[test]
fn the_grammar_allows_spaces_and_quotes_where_it_says() {
    for offer in [
        "permessage-deflate;server_max_window_bits=10",
        "  permessage-deflate ;\tserver_max_window_bits = 10  ",
        ",, permessage-deflate; server_max_window_bits=\"10\" ,",
        "permessage-deflate; server_max_window_bits=\"1\\0\"",
    ] {
        assert_eq!(agreed(offer, SHARED).server.window_bits(), 10, "{offer}");
    }
}

#[test]
fn a_header_that_is_no_list_of_extensions_is_refused() {
    for value in [
        ";",
        "=",
        "permessage-deflate;",
        "permessage-deflate; ;",
        "permessage-deflate; =10",
        "permessage-deflate; server_max_window_bits=",
        "permessage-deflate; server_max_window_bits=\"\"",
        "permessage-deflate; server_max_window_bits=\"10",
        "permessage-deflate; server_max_window_bits=\"10\\",
        "permessage-deflate; server_max_window_bits=\"1 0\"",
        "permessage-deflate; server_max_window_bits=10 11",
        "permessage-deflate server_no_context_takeover",
        "permessage(deflate)",
        "permessage-deflate; name=\u{e9}",
    ] {
        for values in [vec![value], vec!["permessage-deflate", value]] {
            assert_eq!(
                negotiate(values, SHARED),
                Err(MalformedExtensions),
                "{value}"
            );
        }
    }
}
