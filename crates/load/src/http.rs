//! A client's side of HTTP/1.1 on a connection that stays: answers have a `content-length`.

use crate::stream::{Outgoing, Protocol, Step};

/// A client on one connection, which is open as soon as it is connected.
#[derive(Debug, Default)]
pub(crate) struct Http;

impl Protocol for Http {
    fn connected(&mut self, _outgoing: &mut Outgoing) -> bool {
        true
    }

    fn step<'a>(&mut self, input: &'a [u8], _outgoing: &mut Outgoing) -> Result<Step<'a>, String> {
        if input.is_empty() {
            return Ok(Step::More);
        }
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let head = match response.parse(input) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) => return Ok(Step::More),
            Err(error) => return Err(format!("an answer: {error}")),
        };
        if response.code != Some(200) {
            return Err(format!("an answer has status {:?}", response.code));
        }
        let length = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("content-length"))
            .and_then(|header| {
                std::str::from_utf8(header.value)
                    .ok()?
                    .parse::<usize>()
                    .ok()
            })
            .ok_or("an answer without a content-length")?;
        match input.get(head..head.saturating_add(length)) {
            Some(body) => Ok(Step::Message(head + length, body)),
            None => Ok(Step::More),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_body_however_it_is_cut() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHelloHTTP";
        let mut outgoing = Outgoing::default();
        let whole = answer.len() - 4;
        for cut in 0..whole {
            assert!(matches!(
                Http.step(&answer[..cut], &mut outgoing),
                Ok(Step::More)
            ));
        }
        assert!(matches!(
            Http.step(answer, &mut outgoing),
            Ok(Step::Message(size, b"Hello")) if size == whole
        ));
    }

    #[test]
    fn other_answers_are_errors() {
        let mut outgoing = Outgoing::default();
        for answer in [
            &b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"SSH-2.0\r\n\r\n",
        ] {
            assert!(Http.step(answer, &mut outgoing).is_err());
        }
    }
}
