use http::HeaderMap;

use super::super::request_block::request_block;
use super::*;

fn socket(id: u64) -> SocketId {
    SocketId::new(id).expect("a valid id")
}

#[test]
fn what_is_packed_is_read_back() {
    let mut headers = HeaderMap::new();
    headers.append("host", "example".parse().expect("a value"));
    headers.append("x-twice", "1".parse().expect("a value"));
    headers.append("x-twice", "2".parse().expect("a value"));
    let block = request_block("POST", "/a?b=c", "::1", &headers, b"body");
    let token = Bytes::from_static(b"tok");
    let mut batch = Batch::default();
    let of = |id, token| Origin::socket(socket(id), token, 1 << 31);
    batch.open(of((1 << 53) - 1, Some(&token)), &block);
    batch.text(of(2, None), TextBytes::Borrowed("héllo".as_bytes()), false);
    let empty = Bytes::new();
    batch.binary(of(2, Some(&empty)), b"");
    batch.close(of(3, Some(&token)), 4001, "bye");
    let request = RequestId::new(77).expect("a valid id");
    batch.request(request, &block);
    batch.abort(request);
    assert_eq!((batch.events, batch.messages, batch.closes), (6, 2, 1));

    let timeouts: Vec<_> = batch.records().map(|r| word(r.bytes, 6)).collect();
    assert_eq!(timeouts, [1 << 31, 1 << 31, 1 << 31, 1 << 31, 0, 0]);
    let mut events = batch.events();
    let Some(Event::Open {
        socket: id,
        token: Some(b"tok"),
        request: opened,
    }) = events.next()
    else {
        panic!("an open event")
    };
    assert_eq!(id.get(), (1 << 53) - 1);
    assert_eq!(opened.method(), b"POST");
    assert_eq!(opened.url(), b"/a?b=c");
    assert_eq!(opened.remote_address(), b"::1");
    assert_eq!(opened.body(), b"body");
    assert_eq!(
        opened.headers().collect::<Vec<_>>(),
        [
            (&b"host"[..], &b"example"[..]),
            (b"x-twice", b"1"),
            (b"x-twice", b"2")
        ]
    );
    assert_eq!(
        events.next(),
        Some(Event::Message {
            socket: socket(2),
            token: None,
            payload: "héllo".as_bytes(),
            text: true,
            ascii: false
        })
    );
    assert_eq!(
        events.next(),
        Some(Event::Message {
            socket: socket(2),
            token: Some(b""),
            payload: b"",
            text: false,
            ascii: false
        })
    );
    assert_eq!(
        events.next(),
        Some(Event::Close {
            socket: socket(3),
            token: Some(b"tok"),
            code: 4001,
            reason: b"bye"
        })
    );
    assert!(matches!(events.next(), Some(Event::Request { block, .. }) if block.body() == b"body"));
    assert_eq!(events.next(), Some(Event::Abort { request }));
    assert_eq!(events.next(), None);
}

#[test]
fn data_is_found_by_the_offset_of_its_record() {
    let mut batch = Batch::default();
    let token = Bytes::from_static(b"token");
    let mut offsets = Vec::new();
    for (data, token) in [
        ("one", None),
        ("", Some(&token)),
        ("thr\u{e9}", Some(&token)),
    ] {
        let of = Origin::socket(socket(1), token, 0);
        offsets.push((batch.packed().len(), PackedData::Text(data.as_bytes())));
        batch.text(of, TextBytes::Borrowed(data.as_bytes()), false);
        offsets.push((batch.packed().len(), PackedData::Bytes(data.as_bytes())));
        batch.binary(of, data.as_bytes());
    }
    let of = Origin::socket(socket(1), None, 0);
    offsets.push((batch.packed().len(), PackedData::LargeText));
    batch.text(of, TextBytes::Borrowed(&[b'a'; LARGE]), true);
    for (offset, data) in offsets {
        assert_eq!(Batch::data_at(batch.packed(), offset), Some(data));
    }
    let others = batch.packed().len();
    batch.close(of, 1000, "reason");
    batch.drain(of);
    for offset in (others..=batch.packed().len()).chain([1, 4, usize::MAX]) {
        assert_eq!(Batch::data_at(batch.packed(), offset), None);
    }
}

#[test]
fn data_is_looked_for_in_what_others_have_written_to() {
    let mut batch = Batch::default();
    let token = Bytes::from_static(b"token");
    batch.binary(Origin::socket(socket(1), Some(&token), 0), b"bytes");
    let packed = batch.take_packed();
    // Each word in turn says something else: nothing is found outside.
    for at in 0..packed.len() / 4 {
        for word in [
            0,
            1,
            27,
            28,
            29,
            packed.len() as u32,
            u32::MAX - 3,
            u32::MAX,
        ] {
            let mut written = packed.clone();
            written[4 * at..][..4].copy_from_slice(&word.to_le_bytes());
            if let Some(PackedData::Bytes(bytes)) = Batch::data_at(&written, 0) {
                assert!(bytes.len() <= packed.len());
            }
        }
    }
    assert_eq!(batch.packed(), b"");
    batch.put_packed(packed);
    assert_eq!(batch.events().count(), 1);
}

#[test]
fn memory_goes_on_to_the_next_batch_when_it_is_large() {
    let of = Origin::socket(socket(1), None, 0);
    let mut batch = Batch::default();
    batch.binary(of, &[7; 50_000]);
    let next = batch.next_one();
    assert_eq!(next.capacity(), 0, "none that gets nothing takes any");
    let mut next = next;
    next.binary(of, b"short");
    assert!(
        (50_000..=125_000).contains(&next.capacity()),
        "{}",
        next.capacity()
    );
}

#[test]
fn a_batch_of_which_handlers_keep_nothing_can_be_told() {
    let of = Origin::socket(socket(1), None, 0);
    let token = Bytes::from_static(b"token");
    let mut plain = Batch::default();
    plain.text(of, TextBytes::Borrowed(b"text"), true);
    plain.drain(of);
    plain.close(of, 1000, "reason");
    assert!(!plain.has_bytes_to_keep());
    let keeps: [fn(&mut Batch, Origin<'_>, Option<&Bytes>); 4] = [
        |batch, of, _| batch.binary(of, b""),
        |batch, of, _| batch.open(of, b"block"),
        |batch, _, _| batch.request(RequestId::new(1).expect("a valid id"), b"block"),
        |batch, _, token| batch.drain(Origin::socket(socket(1), token, 0)),
    ];
    for keep in keeps {
        let mut kept = Batch::default();
        keep(&mut kept, of, Some(&token));
        assert!(kept.has_bytes_to_keep());
        let mut copy = Batch::default();
        kept.records().for_each(|record| copy.copy(record));
        assert!(copy.has_bytes_to_keep());
        let mut joined = Batch::default();
        plain.records().for_each(|record| joined.copy(record));
        assert!(!joined.has_bytes_to_keep());
        joined.append(kept);
        assert!(joined.has_bytes_to_keep());
    }
}

#[test]
fn large_texts_keep_their_places_when_batches_are_joined_and_handed_on() {
    let texts = [1, LARGE - 1, LARGE, 7, LARGE + 1, 3 * LARGE];
    let mut whole = Batch::default();
    for (n, size) in texts.into_iter().enumerate() {
        let mut part = Batch::default();
        let of = Origin::socket(socket(n as u64 + 1), None, 0);
        part.text(of, TextBytes::Borrowed(&vec![b'a' + n as u8; size]), true);
        part.binary(of, &vec![n as u8; size]);
        whole.append(part);
    }
    let mut copy = Batch::default();
    whole.records().for_each(|record| copy.copy(record));
    for batch in [&whole, &copy] {
        let mut events = batch.events();
        for (n, size) in texts.into_iter().enumerate() {
            for (byte, is_text) in [(b'a' + n as u8, true), (n as u8, false)] {
                let Some(Event::Message { payload, text, .. }) = events.next() else {
                    panic!("a message")
                };
                assert_eq!((payload, text), (vec![byte; size].as_slice(), is_text));
            }
        }
        assert_eq!(events.next(), None);
        let size: usize = texts.iter().sum();
        assert!(batch.len() >= 2 * size && batch.packed().len() < batch.len());
    }
    assert_eq!(copy.len(), whole.len());
    assert_eq!(whole.take_large_texts().len(), 3);
}
