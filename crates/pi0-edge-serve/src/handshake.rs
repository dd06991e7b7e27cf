//! The request that opens a websocket, and the other thing that can be asked by HTTP: whether the server is there.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::event::PollFlags;
use sha2::{Digest, Sha256};
use tungstenite::handshake::derive_accept_key;

use crate::options::{HANDSHAKE, LINGER, MAX_HEAD};
use crate::waiting::wait;

const MAX_HEADERS: usize = 64;

/// The answer.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    /// The websocket is open; the value is for `Sec-WebSocket-Accept`.
    Upgrade(String),
    /// A status, a header to go with it, and words.
    Status(&'static str, &'static str, &'static str),
}

/// Opens a websocket on a stream that does not block. Returns what came behind the request, or none where there is no
/// websocket; whoever asked has then been answered. `admit` is asked last, and says whether there is room.
///
/// # Errors
/// The connection's. A request that is late or too long is one of kind `TimedOut` or `InvalidData`.
pub(crate) fn open(
    stream: &mut TcpStream,
    api_key: Option<&str>,
    admit: &mut dyn FnMut() -> bool,
) -> io::Result<Option<Vec<u8>>> {
    let until = Instant::now() + HANDSHAKE;
    let mut head = Vec::new();
    let end = loop {
        let mut part = [0; 4096];
        let n = match stream.read(&mut part) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                ready(stream, PollFlags::IN, until)?;
                continue;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        // The end may lie across two parts.
        let from = head.len().saturating_sub(3);
        head.extend_from_slice(&part[..n]);
        if let Some(at) = head[from..].windows(4).position(|w| w == b"\r\n\r\n") {
            break from + at + 4;
        }
        if head.len() > MAX_HEAD {
            let reply = Reply::Status("431 Request Header Fields Too Large", "", "the request is too long\n");
            answer(stream, &reply, until)?;
            goodbye(stream);
            return Ok(None);
        }
    };
    let behind = head.split_off(end);
    let reply = judge(&head, api_key, admit);
    answer(stream, &reply, until)?;
    match reply {
        Reply::Upgrade(_) => Ok(Some(behind)),
        Reply::Status(..) => {
            goodbye(stream);
            Ok(None)
        }
    }
}

/// Decides about a request.
fn judge(head: &[u8], api_key: Option<&str>, admit: &mut dyn FnMut() -> bool) -> Reply {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    if !matches!(request.parse(head), Ok(httparse::Status::Complete(_))) {
        return Reply::Status("400 Bad Request", "", "this is no HTTP request\n");
    }
    let header = |name: &str| {
        let found = request.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
        found.and_then(|h| std::str::from_utf8(h.value).ok()).map(str::trim)
    };
    let has = |name: &str, word: &str| {
        header(name).is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
    };
    if request.method != Some("GET") {
        return Reply::Status("405 Method Not Allowed", "Allow: GET\r\n", "only GET is answered\n");
    }
    let path = request.path.unwrap_or_default();
    if !has("upgrade", "websocket") {
        return match path.split('?').next() {
            Some("/healthz") => Reply::Status("200 OK", "", "OK\n"),
            _ => Reply::Status(
                "426 Upgrade Required",
                "Upgrade: websocket\r\n",
                "this is a policy server for openpi's websocket client; GET /healthz says whether it is there\n",
            ),
        };
    }
    if request.headers.iter().any(|h| h.name.eq_ignore_ascii_case("origin")) {
        return Reply::Status("403 Forbidden", "", "pages in a browser are not served\n");
    }
    let given = header("authorization").and_then(|value| value.strip_prefix("Api-Key "));
    if api_key.is_some_and(|key| !given.is_some_and(|given| same(key, given.trim()))) {
        let challenge = "WWW-Authenticate: Api-Key\r\n";
        return Reply::Status("401 Unauthorized", challenge, "the API key is missing or wrong\n");
    }
    if !has("connection", "upgrade") {
        return Reply::Status("400 Bad Request", "", "the header `Connection: Upgrade` is missing\n");
    }
    if header("sec-websocket-version") != Some("13") {
        let version = "Sec-WebSocket-Version: 13\r\n";
        return Reply::Status("426 Upgrade Required", version, "version 13 of websockets is spoken here\n");
    }
    // 16 bytes in base64.
    let Some(key) = header("sec-websocket-key").filter(|key| key.len() == 24 && key.ends_with("==")) else {
        return Reply::Status("400 Bad Request", "", "the header `Sec-WebSocket-Key` is missing or wrong\n");
    };
    if !admit() {
        return Reply::Status(
            "503 Service Unavailable",
            "Retry-After: 10\r\n",
            "there are too many clients\n",
        );
    }
    Reply::Upgrade(derive_accept_key(key.as_bytes()))
}

/// Compares two keys in a time that tells nothing about where they differ.
fn same(a: &str, b: &str) -> bool {
    let (a, b) = (Sha256::digest(a), Sha256::digest(b));
    a.iter().zip(b.iter()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

fn answer(stream: &mut TcpStream, reply: &Reply, until: Instant) -> io::Result<()> {
    let text = match reply {
        Reply::Upgrade(accept) => format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        ),
        Reply::Status(status, header, words) => format!(
            "HTTP/1.1 {status}\r\n{header}Content-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n\
             {words}",
            words.len()
        ),
    };
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match stream.write(rest) {
            Ok(n) => rest = &rest[n..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready(stream, PollFlags::OUT, until)?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Waits until a stream can be read or written.
fn ready(stream: &TcpStream, flags: PollFlags, until: Instant) -> io::Result<()> {
    match wait([(stream.as_fd(), flags)], Some(until))? {
        [happened] if happened.is_empty() => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// Ends a connection so that the last words reach the other side: closing with bytes unread would take them back.
pub(crate) fn goodbye(stream: &mut TcpStream) {
    let until = Instant::now() + LINGER;
    let _ = stream.shutdown(Shutdown::Write);
    let mut unread = [0; 16 << 10];
    while Instant::now() < until {
        match stream.read(&mut unread) {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if ready(stream, PollFlags::IN, until).is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPGRADE: &str = "GET /any?query HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    fn status(head: &str, key: Option<&str>, full: bool) -> String {
        match judge(format!("{head}\r\n").as_bytes(), key, &mut || !full) {
            Reply::Upgrade(accept) => accept,
            Reply::Status(status, ..) => status[..3].to_owned(),
        }
    }

    #[test]
    fn a_websocket_is_opened_on_any_path() {
        assert_eq!(status(UPGRADE, None, false), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(status(UPGRADE, None, true), "503");
    }

    #[test]
    fn requests_that_open_none_are_told_why() {
        for (head, wanted) in [
            ("GET /healthz HTTP/1.1\r\n", "200"),
            ("GET /healthz?x=1 HTTP/1.1\r\nOrigin: http://robot\r\n", "200"),
            ("GET / HTTP/1.1\r\n", "426"),
            ("POST /healthz HTTP/1.1\r\n", "405"),
            ("nonsense\r\n", "400"),
            (&format!("{UPGRADE}Origin: http://robot\r\n"), "403"),
            (&UPGRADE.replace("Version: 13", "Version: 8"), "426"),
            (&UPGRADE.replace("Upgrade\r\nSec", "close\r\nSec"), "400"),
            (&UPGRADE.replace("b25jZQ==", ""), "400"),
        ] {
            assert_eq!(status(head, None, false), wanted, "{head}");
        }
    }

    #[test]
    fn a_key_is_wanted_where_there_is_one() {
        for (header, fine) in [
            ("Authorization: Api-Key secret\r\n", true),
            ("authorization: Api-Key secret\r\n", true),
            ("Authorization: Api-Key secre\r\n", false),
            ("Authorization: Api-Key secret2\r\n", false),
            ("Authorization: Bearer secret\r\n", false),
            ("", false),
        ] {
            let status = status(&format!("{UPGRADE}{header}"), Some("secret"), false);
            assert_eq!(status != "401", fine, "{header:?}: {status}");
        }
        assert_eq!(status("GET /healthz HTTP/1.1\r\n", Some("secret"), true), "200");
    }
}
