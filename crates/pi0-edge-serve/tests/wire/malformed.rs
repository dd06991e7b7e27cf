//! Messages and connections that are wrong: each has its answer, and a good request is served afterwards.

use std::io::{Read, Write};
use std::net::Shutdown;

use pi0_edge_serve::Options;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Bytes, Message};

use crate::client::{Client, Heard, Running, load, options};
use crate::messages::{Item, actions, observation, pixels, seeded};

/// Checks that the server serves.
fn assert_serves(server: &Running, want: &[f32]) {
    match server.client().ask(seeded(5)) {
        Heard::Chunk(response) => assert_eq!(actions(&response), want),
        other => panic!("a good request was answered with {other:?}"),
    }
}

fn good(server: &Running) -> Vec<f32> {
    match server.client().ask(seeded(5)) {
        Heard::Chunk(response) => actions(&response),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_observation_that_does_not_fit_is_answered_in_words_and_the_connection_goes_on() {
    let server = Running::tiny();
    let mut client = server.client();
    let image = |shape: &[u64]| Item::bytes(shape, vec![0; shape.iter().product::<u64>() as usize]);
    let of =
        |dtype, shape: &[u64], data: &[u8]| Item::Array { dtype, shape: shape.to_vec(), data: data.to_vec() };
    let base = "observation/images/base";
    let cases: Vec<(&str, Item, &str)> = vec![
        ("images.base", image(&[8, 8, 3]), "are the same"),
        ("images.nose", image(&[8, 8, 3]), "no camera takes the image"),
        (base, Item::Nil, "is required and missing"),
        (base, Item::Number(1.0), "wants `data`"),
        (base, image(&[8, 8]), "3 axes"),
        (base, image(&[8, 8, 4]), "not [8, 8, 4]"),
        (base, image(&[0, 8, 3]), "each side"),
        (base, of("|O", &[8, 8, 3], &[0; 192]), "dtype \"|O\""),
        (base, of("<i4", &[1, 1, 3], &[0; 12]), "u8, or of floats"),
        (base, of("|u1", &[8, 8, 3], &[0; 191]), "another length"),
        (base, of("|u1", &[1 << 62, 4, 3], &[]), "another length"),
        (base, Item::floats(&[1, 1, 3], &[0.0, f32::NAN, 1.0]), "has NaN"),
        (base, Item::floats(&[1, 1, 3], &[0.0, 1.5, 1.0]), "from 0 to 1"),
        ("observation/state", Item::floats(&[5], &[0.0; 5]), "state has 5 entries"),
        ("observation/state", Item::floats(&[1, 6], &[0.0; 6]), "one axis"),
        ("observation/state", Item::floats(&[6], &[f32::INFINITY; 6]), "state[0] is inf"),
        ("observation/state", Item::Text("zero".into()), "numbers are wanted"),
        ("observation/state", Item::Nil, "state has 0 entries"),
        ("prompt", Item::Number(1.0), "a text is wanted"),
        ("noise", Item::floats(&[9, 32], &[0.0; 9 * 32]), "must be [10, 32]"),
        ("num_steps", Item::Whole(0), "steps"),
        ("num_steps", Item::Whole(1 << 60), "steps"),
        ("num_steps", Item::Number(2.5), "whole number"),
        ("seed", Item::Text("one".into()), "whole number"),
        ("prev_chunk_left_over", Item::floats(&[11, 7], &[0.0; 77]), "up to 10 rows of 7"),
        ("prev_chunk_left_over", Item::floats(&[2, 6], &[0.0; 12]), "up to 10 rows of 7"),
    ];
    for (key, item, words) in cases {
        match client.ask(observation(&[(key, item)]).pack()) {
            Heard::Words(text) => assert!(text.contains(words), "{key}: {text}"),
            other => panic!("{key}, {words}: {other:?}"),
        }
    }
    let both = [("seed", Item::Whole(1)), ("noise", Item::floats(&[10, 32], &[0.0; 320]))];
    assert!(matches!(client.ask(observation(&both).pack()), Heard::Words(_)));
    assert!(matches!(client.ask(seeded(1)), Heard::Chunk(_)), "the same connection");
}

#[test]
fn what_is_no_request_is_answered_and_closed() {
    let server = Running::tiny();
    let want = good(&server);
    // What Python's pickle.dumps makes of a dictionary, and of a call of a function.
    let pickles: [&[u8]; 2] =
        [b"\x80\x04\x95\x0b\0\0\0\0\0\0\0}\x94\x8c\x01a\x94K\x01s.", b"cos\nsystem\n(S'true'\ntR."];
    let bombs: [&[u8]; 5] = [
        &[0x91; 100_000],
        &[0xdd, 0xff, 0xff, 0xff, 0xff],
        &[0xdf, 0, 0, 0xff, 0xff],
        b"\xc6\xff\xff\xff\xff",
        &[],
    ];
    for message in pickles.into_iter().chain(bombs) {
        let mut client = server.client();
        assert!(matches!(client.ask(message.to_vec()), Heard::Words(_)));
        assert_eq!(client.hear(), Heard::Closed(Some(1007)));
    }
    let mut client = server.client();
    client.0.send(Message::Text("infer".into())).unwrap();
    assert!(matches!(client.hear(), Heard::Words(_)));
    assert_eq!(client.hear(), Heard::Closed(Some(1003)));
    assert_serves(&server, &want);
}

/// A frame of a client: its first byte, its length as it says, its payload; masked with zeros or not at all.
fn frame(first: u8, length: u64, masked: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, 127 | if masked { 0x80 } else { 0 }];
    bytes.extend(length.to_be_bytes());
    bytes.extend(if masked { &[0; 4][..] } else { &[] });
    bytes.extend(payload);
    bytes
}

/// The fate of a client that sends these bytes once its websocket is open.
fn after(server: &Running, bytes: &[u8]) -> Heard {
    let mut client = server.client();
    client.0.get_mut().write_all(bytes).unwrap();
    client.hear()
}

#[test]
fn frames_that_are_none_close_with_the_code_for_it() {
    let server = Running::tiny();
    let want = good(&server);
    for (bytes, code) in [
        (frame(0x82, 1 << 40, true, &[0; 4096]), 1009),
        (frame(0x82, (1 << 20) + 1, true, &[]), 1009),
        (frame(0x82, 1, false, &[0xc0]), 1002),
        (frame(0xc2, 1, true, &[0xc0]), 1002),
        (frame(0x83, 1, true, &[0xc0]), 1002),
        (frame(0x80, 1, true, &[0xc0]), 1002),
        (frame(0x89, 126, true, &[0; 126]), 1002),
        (frame(0x09, 1, true, &[0]), 1002),
        (frame(0x81, 1, true, &[0xff]), 1007),
    ] {
        assert_eq!(
            after(&server, &bytes),
            Heard::Closed(Some(code)),
            "{:02x?}",
            &bytes[..14.min(bytes.len())]
        );
    }
    let mut client = server.client();
    let part = |first, end| {
        let opcode = if first { Data::Binary } else { Data::Continue };
        Message::Frame(Frame::message(Bytes::from(vec![0; 600_000]), OpCode::Data(opcode), end))
    };
    client.0.send(part(true, false)).unwrap();
    // The server may have closed before all of it was sent.
    let _ = client.0.send(part(false, true));
    assert_eq!(client.hear(), Heard::Closed(Some(1009)), "two fragments are too large together");
    assert_serves(&server, &want);
}

#[test]
fn a_message_may_come_in_any_pieces() {
    let server = Running::tiny();
    let want = good(&server);
    let message = seeded(5);
    let mut client = server.client();
    let pieces: Vec<&[u8]> = message.chunks(1000).collect();
    for (i, piece) in pieces.iter().enumerate() {
        let opcode = OpCode::Data(if i == 0 { Data::Binary } else { Data::Continue });
        let end = i + 1 == pieces.len();
        client.0.send(Message::Frame(Frame::message(Bytes::copy_from_slice(piece), opcode, end))).unwrap();
        if i == 3 {
            client.0.send(Message::Ping(Bytes::new())).unwrap();
            assert_eq!(client.hear(), Heard::Pong, "in the middle of a message");
        }
    }
    let Heard::Chunk(response) = client.hear() else { panic!("no chunk") };
    assert_eq!(actions(&response), want);
}

#[test]
fn clients_that_stall_or_vanish_cost_the_others_nothing() {
    let server = Running::start(load("pi0-tiny"), Options { max_clients: 64, ..options() });
    let want = good(&server);
    let message = frame(0x82, seeded(5).len() as u64, true, &seeded(5));
    let mut left = Vec::new();
    for i in 0..40 {
        let mut stream = match i % 4 {
            // Half a handshake.
            0 => {
                let mut stream = server.stream();
                stream.write_all(b"GET / HTTP/1.1\r\nUpgr").unwrap();
                stream
            }
            _ => server.client().0.into_inner(),
        };
        match i % 4 {
            0 => {}
            1 => stream.write_all(&message[..message.len() / 2]).unwrap(),
            // Requests whose answers nobody reads.
            2 => (0..4).for_each(|_| stream.write_all(&message).unwrap()),
            _ => {
                stream.write_all(&message).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            }
        }
        if i % 8 < 4 {
            left.push(stream);
        }
        assert_serves(&server, &want);
    }
    // A client that has closed its half gets nothing more, and no error either.
    let mut rest = Vec::new();
    let half_closed = &mut left[3];
    let _ = half_closed.read_to_end(&mut rest);
    assert_serves(&server, &want);
}

/// A xorshift generator: the same messages every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

const KEYS: [&str; 9] = [
    "observation/images/base",
    "observation/images/wrist",
    "observation/images/nose",
    "observation/state",
    "prompt",
    "noise",
    "num_steps",
    "seed",
    "prev_chunk_left_over",
];

/// A value of any kind, a small array most of the time.
fn item(random: &mut Random) -> Item {
    const DTYPES: [&str; 8] = ["|u1", "|i1", "<f2", "<f4", "<f8", "<U2", "|O", ">f4"];
    match random.below(8) {
        0 => Item::Nil,
        1 => Item::Whole(random.next() >> random.below(64)),
        2 => Item::Number(f64::from_bits(random.next())),
        3 => Item::Text("what?".repeat(random.below(5))),
        _ => {
            let shape: Vec<u64> = (0..random.below(6)).map(|_| random.next() % 4).collect();
            let n = shape.iter().product::<u64>() as usize * [1, 1, 2, 4, 8][random.below(5)];
            Item::Array { dtype: DTYPES[random.below(8)], shape, data: random.bytes(n) }
        }
    }
}

/// A message that is wrong, or right by chance.
fn wrong(random: &mut Random, small: &[u8]) -> Vec<u8> {
    let mut message = small.to_vec();
    match random.below(9) {
        0 => {
            let n = random.below(200);
            message = random.bytes(n);
        }
        1 => message.truncate(random.below(small.len())),
        2 => {
            // Lengths, types and names are in the first bytes and around every array.
            for _ in 0..=random.below(8) {
                let at = random.below(small.len());
                message[at] = random.next() as u8;
            }
        }
        3 => {
            let (at, n) = (random.below(small.len()), random.below(32));
            let bytes = random.bytes(n);
            message.splice(at..at, bytes);
        }
        4 => {
            let at = random.below(small.len());
            let end = (at + random.below(64)).min(message.len());
            message.drain(at..end);
        }
        5 => {
            let marker = [0xdd, 0xdf, 0xc6, 0xdb, 0xcf, 0xcb, 0x91, 0x81, 0xc1, 0xd4][random.below(10)];
            let at = random.below(small.len());
            message[at] = marker;
        }
        // Well-formed, and of the wrong kind in some place.
        _ => return observation(&[(KEYS[random.below(KEYS.len())], item(random))]).pack(),
    }
    message
}

/// Sends `count` wrong messages and checks every answer. Returns how many were answered with a chunk, with words alone,
/// and with words and a close.
fn storm(server: &Running, count: usize, want: &[f32]) -> [usize; 3] {
    let small = observation(&[
        ("observation/images/base", Item::bytes(&[2, 3, 3], pixels(3, 2, 1))),
        ("observation/images/wrist", Item::bytes(&[3, 2, 2], pixels(2, 2, 1))),
        ("num_steps", Item::Whole(1)),
    ])
    .pack();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut client: Option<Client> = None;
    let mut heard = [0; 3];
    for i in 0..count {
        let open = client.get_or_insert_with(|| server.client());
        let message = wrong(&mut random, &small);
        match open.ask(message.clone()) {
            Heard::Chunk(_) => heard[0] += 1,
            Heard::Words(words) if words.starts_with("the message is no m") => {
                assert_eq!(open.hear(), Heard::Closed(Some(1007)), "{words}");
                client = None;
                heard[2] += 1;
            }
            Heard::Words(_) => heard[1] += 1,
            other => panic!("message {i} was answered with {other:?}: {message:02x?}"),
        }
        if i % 100 == 0 {
            assert_serves(server, want);
        }
    }
    assert_serves(server, want);
    heard
}

#[test]
fn wrong_messages_are_answered_one_and_all() {
    let count = std::env::var("PI0_EDGE_MESSAGES").map_or(1000, |n| n.parse().expect("a number of messages"));
    let server = Running::tiny();
    let want = good(&server);
    let [chunks, words, closed] = storm(&server, count, &want);
    println!("{count} messages: {chunks} chunks, {words} answered in words, {closed} closed as well");
    assert_eq!(chunks + words + closed, count);
    assert!(words > count / 20 && closed > count / 20, "both kinds were there: {words}, {closed}");
}
