//! Origins: a text is one exactly if a naive reader takes it, in the same form; what is printed reads as the same; and a
//! list lets in who is in it, and whoever has none.

use std::sync::Arc;

use http::header::ORIGIN;
use http::{HeaderMap, HeaderValue};

use crate::http::origin::{Origin, OriginAnswer, OriginCheck, OriginCheckup, Origins};

/// The first line are the origins of a list, with spaces between them; the others are values of the header.
pub fn origins(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let listed = String::from_utf8_lossy(lines.next().unwrap_or_default());
    let list: Vec<_> = listed.split(' ').filter_map(parse).collect();

    let mut headers = HeaderMap::new();
    let mut values = Vec::new();
    for line in lines {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(ORIGIN, value);
            values.push(line);
        }
        if let Ok(text) = std::str::from_utf8(line) {
            parse(text);
        }
    }

    let own: Vec<_> = list.iter().map(ToString::to_string).collect();
    let any = Origins::Any.check(&headers);
    assert!(matches!(any, OriginCheckup::Allowed));
    let is_listed = match values.as_slice() {
        [] => true,
        [one] => readable(one)
            .and_then(naive)
            .is_some_and(|origin| own.contains(&origin)),
        _ => false,
    };
    match Origins::List(list.into()).check(&headers) {
        OriginCheckup::Allowed => assert!(is_listed, "let in"),
        OriginCheckup::Refused => assert!(!is_listed, "kept out"),
        OriginCheckup::Asked(_) => panic!("there is nobody to ask"),
    }
    let is_sound = match values.as_slice() {
        [] => true,
        [one] => readable(one).is_some(),
        _ => false,
    };
    match Origins::Ask(Arc::new(Nobody)).check(&headers) {
        OriginCheckup::Allowed => panic!("the answer is the application's"),
        OriginCheckup::Refused => assert!(!is_sound),
        OriginCheckup::Asked(_) => assert!(is_sound),
    }
}

struct Nobody;

impl OriginCheck for Nobody {
    fn ask(&self, _: Option<&str>, _: OriginAnswer) {
        unreachable!("the question is not asked here");
    }
}

fn parse(text: &str) -> Option<Origin> {
    let parsed: Option<Origin> = text.parse().ok();
    let printed = parsed.as_ref().map(ToString::to_string);
    assert_eq!(printed, naive(text), "{text}");
    if let Some(printed) = printed {
        assert_eq!(printed.parse().ok(), parsed, "{text}");
        assert_eq!(printed.to_ascii_uppercase().parse().ok(), parsed, "{text}");
    }
    parsed
}

/// A value of which anybody can tell what it says.
fn readable(value: &[u8]) -> Option<&str> {
    let is_visible = value.iter().all(|b| matches!(b, b'\t' | b' '..=b'~'));
    let text = std::str::from_utf8(value).ok()?;
    (is_visible && value.len() <= 1024).then_some(text)
}

/// The one form of an origin.
fn naive(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    if ["null", "file://"].contains(&text.as_str()) {
        return Some(text);
    }
    let at = text.find("://")?;
    let (scheme, authority) = (&text[..at], &text[at + 3..]);
    let are_letters = |text: &str, others: &str| {
        let mut chars = text.chars();
        chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || others.contains(c))
    };
    let begins = scheme
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_lowercase());
    if !begins || !are_letters(scheme, "+-.") {
        return None;
    }
    let is_host = |host: &str| match host.starts_with('[') {
        true => {
            host.ends_with(']')
                && host[1..host.len() - 1]
                    .parse::<std::net::Ipv6Addr>()
                    .is_ok()
        }
        false => !host.is_empty() && are_letters(host, "-._~"),
    };
    if is_host(authority) {
        return Some(text);
    }
    let (host, digits) = authority.rsplit_once(':')?;
    let are_digits = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
    let significant = digits.trim_start_matches('0');
    if !is_host(host) || !are_digits || significant.len() > 5 {
        return None;
    }
    match (scheme, significant.parse::<u32>().unwrap_or(0)) {
        (_, 0 | 65536..) => None,
        ("http", 80) | ("https", 443) => Some(format!("{scheme}://{host}")),
        (_, port) => Some(format!("{scheme}://{host}:{port}")),
    }
}
