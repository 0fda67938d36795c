use super::*;

/// What hyper is shown of these reads, and what of the target is put back.
struct Reader {
    heads: Heads,
    hidden: Hidden,
}

impl Reader {
    fn new() -> Self {
        Self {
            heads: Heads::new(),
            hidden: Hidden::default(),
        }
    }

    fn read(&mut self, text: &str, expects_head: bool, body: u64) -> String {
        let mut bytes = text.as_bytes().to_vec();
        self.heads
            .read(&mut bytes, expects_head, body, &self.hidden);
        String::from_utf8(bytes).expect("text")
    }

    /// A head that is expected behind a body of so many bytes.
    fn head(&mut self, text: &str, body: u64) -> String {
        self.read(text, true, body)
    }

    fn raw(&self, shown: &str) -> Option<String> {
        let shown = shown.parse().expect("a target");
        self.hidden.take(Some(&shown)).map(|RawTarget(raw)| raw)
    }
}

const RAW: &str = "GET /a\"<`>b?c=\"<>`&d HTTP/1.1\r\nx: \"<`>\r\n\r\n";
const SHOWN: &str = "GET /a____b?c=____&d HTTP/1.1\r\nx: \"<`>\r\n\r\n";

#[test]
fn a_target_gets_its_own_bytes_back_however_it_is_cut() {
    for cut in 0..RAW.len() {
        let mut reader = Reader::new();
        let (one, other) = RAW.split_at(cut);
        let shown = [one, other].map(|part| reader.head(part, 0)).concat();
        assert_eq!(shown, SHOWN, "{cut}");
        let raw = reader.raw("/a____b?c=____&d");
        assert_eq!(raw.as_deref(), Some("/a\"<`>b?c=\"<>`&d"), "{cut}");
        assert_eq!(reader.raw("/a____b"), None, "only once");
    }
}

#[test]
fn a_fragment_of_which_hyper_says_nothing_is_not_put_back() {
    let mut reader = Reader::new();
    reader.head("GET /\"#\"\"\" HTTP/1.1\r\n\r\n", 0);
    assert_eq!(reader.raw("/_").as_deref(), Some("/\""));
}

#[test]
fn nothing_but_paths_is_amended() {
    for line in [
        "G\"ET / HTTP/1.1",
        "GET a\"b HTTP/1.1",
        "GET http://a\"b/ HTTP/1.1",
        "GET / HTTP/1.1\"",
        "GET / \"",
        "\"",
        "GET  /\" HTTP/1.1",
    ] {
        let head = format!("{line}\r\nhost: \"\r\n\r\n");
        let mut reader = Reader::new();
        assert_eq!(reader.head(&head, 0), head);
        assert_eq!(reader.raw("/"), None);
    }
}

/// Each is a whole request, with what it says behind its head, and how many bytes of a body that makes.
const BEFORE: [(&str, &str, u64); 7] = [
    ("GET / HTTP/1.1\r\n\r\n", "", 0),
    ("GET / HTTP/1.1\n\n", "", 0),
    ("POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n", "x\"", 2),
    ("GET / HTTP/1.1\r\ncontent-length: 4\r\n\r\n", "\r\n\r\n", 4),
    ("POST / HTTP/1.1\ncontent-length: 5\n\n", "GET /", 5),
    ("POST / HTTP/1.1\r\n\r\n", "1\r\n\"\r\n0\r\n\r\n", 1),
    ("POST / HTTP/1.1\r\n\r\n", "0\r\ntrailer: x\r\n\r\n", 0),
];

#[test]
fn a_head_is_found_behind_every_body() {
    for (head, rest, body) in BEFORE {
        for apart in [false, true] {
            let mut reader = Reader::new();
            if apart {
                assert_eq!(reader.head(head, 0), head);
                if !rest.is_empty() {
                    assert_eq!(reader.read(rest, false, 0), rest);
                }
            } else {
                let whole = [head, rest].concat();
                assert_eq!(reader.head(&whole, 0), whole);
            }
            assert_eq!(reader.head(RAW, body), SHOWN, "{head:?} {rest:?} {apart}");
        }
    }
}

#[test]
fn what_may_be_in_the_middle_of_a_head_is_left_alone() {
    for (head, rest, body) in BEFORE {
        for more in ["POST /x HTTP/1.1\r\nx: ", "POST /x HTTP/1.1", "P"] {
            let mut reader = Reader::new();
            reader.head(&[head, rest, more].concat(), 0);
            assert_eq!(reader.head(RAW, body), RAW, "{head:?} {rest:?}");
            // From here on it is certain again.
            assert_eq!(reader.head(RAW, 0), SHOWN, "{head:?} {rest:?}");
        }
    }
}

#[test]
fn a_body_is_left_alone() {
    let mut reader = Reader::new();
    let long = "\r\ncontent-length: 99999999999999999999\r\n";
    for head in [
        "POST / HTTP/1.1\r\ncontent-length: 99\r\n\r\n",
        "GET / HTTP/1.1\r\ncontent-length: 99\r\n\r\n",
    ] {
        let whole = [head, RAW, long, "\r\n\r\n"].concat();
        assert_eq!(reader.head(&whole, 0), whole);
        assert_eq!(reader.read(RAW, false, 9), RAW);
        reader = Reader::new();
    }
}

/// What hyper is shown instead of this length.
fn shown_length(line: &str) -> String {
    let mut reader = Reader::new();
    let shown = reader.head(
        &format!("POST / HTTP/1.1\r\na: b\r\n{line}\r\nc: d\r\n\r\n"),
        0,
    );
    let line = shown.split("\r\n").nth(2).expect("the header");
    line.to_owned()
}

#[test]
fn a_length_that_does_not_fit_64_bits_becomes_the_largest_that_does() {
    let largest = u64::MAX.to_string();
    for (length, shown) in [
        (largest.as_str(), "09999999999999999999"),
        ("18446744073709551616", "09999999999999999999"),
        ("99999999999999999999", "09999999999999999999"),
        ("0000123456789012345678901", "0000009999999999999999999"),
    ] {
        for name in ["content-length: ", "Content-Length:", "CONTENT-LENGTH: \t"] {
            let line = format!("{name}{length}");
            assert_eq!(shown_length(&line), format!("{name}{shown}"));
        }
    }
    let endless = format!("content-length: {}", "7".repeat(10_000));
    let shown = shown_length(&endless);
    assert!(shown.ends_with("09999999999999999999") && shown.len() == endless.len());
    for line in [
        "content-length: 9999999999999999999",
        "content-length: 00000000000000000000000000000005",
        "x-content-length: 99999999999999999999",
        "content-length-x: 99999999999999999999",
        "content-length: -99999999999999999999",
        "content-length 99999999999999999999",
        "x: content-length: 99999999999999999999",
        "x: 9999999999999999999999999999999999999999999999999999",
    ] {
        assert_eq!(shown_length(line), line);
    }
}

#[test]
fn a_length_is_found_wherever_it_stands_unless_it_is_cut() {
    let head = |before: usize, digits: &str| {
        let before = "y".repeat(before);
        format!("POST /{before} HTTP/1.1\r\nx: 123456\r\ncontent-length: {digits}\r\n\r\n")
    };
    let (digits, zeros) = ("9".repeat(20), "09999999999999999999");
    for before in 0..50 {
        let mut reader = Reader::new();
        assert_eq!(reader.head(&head(before, &digits), 0), head(before, zeros));
    }
    let whole = head(3, &digits);
    let number = whole.find(&digits).expect("it is there");
    for cut in 0..whole.len() {
        let mut reader = Reader::new();
        let shown = [&whole[..cut], &whole[cut..]].map(|part| reader.head(part, 0));
        let line_is_cut = (number - 15..=number + 20).contains(&cut);
        let expected = if line_is_cut {
            whole.clone()
        } else {
            head(3, zeros)
        };
        assert_eq!(shown.concat(), expected, "{cut}");
    }
}

/// Ten times the head takes ten times as long, and not a hundred times.
#[test]
fn a_head_of_nothing_but_long_numbers_is_looked_at_once() {
    let long = "9".repeat(21);
    for line in [
        format!("content-length: {long}\r\n"),
        format!("x{long} "),
        format!("{long}{long}"),
    ] {
        let time = |times: usize| {
            let mut headers = line.repeat(times).into_bytes();
            let began = std::time::Instant::now();
            shorten_length(&mut headers, true, true);
            began.elapsed().as_nanos().max(1)
        };
        let least = |times| (0..5).map(|_| time(times)).min();
        let (some, many) = (least(2_000), least(40_000));
        let ratio = many.zip(some).map(|(many, some)| many / some);
        assert!(
            ratio < Some(200),
            "{line:?}: {ratio:?} for twenty times as much"
        );
    }
}
