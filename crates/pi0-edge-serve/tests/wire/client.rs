//! A server on a free port, and clients of it.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use pi0_edge::{Policy, PolicyOptions};
pub use pi0_edge_serve::internals::loopback as options;
use pi0_edge_serve::{Options, Server};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message, WebSocket};

/// Longest wait for an answer: a machine with much else to do must still pass.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn bundle(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models").join(name)
}

pub fn load(name: &str) -> Policy {
    let options = PolicyOptions { threads: 1, no_spin: true, ..PolicyOptions::default() };
    Policy::load(bundle(name), &options)
        .expect("the bundle loads; scripts/fetch_onnxruntime.sh fetches the library")
}

/// A server on a thread. Dropping it stops it, and checks that it ended as it should.
pub struct Running {
    pub address: SocketAddr,
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<pi0_edge::Result<()>>>,
}

impl Running {
    pub fn start(policy: Policy, options: Options) -> Self {
        let (stop, stopped) = UnixStream::pair().unwrap();
        let server = Server::bind(policy, options, stopped.into()).unwrap();
        let address = server.address().unwrap();
        let thread = std::thread::spawn(move || server.run());
        Running { address, stop: Some(stop), thread: Some(thread) }
    }

    pub fn tiny() -> Self {
        Self::start(load("pi0-tiny"), options())
    }

    pub fn stream(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// A client that has read the first message.
    pub fn client(&self) -> Client {
        let mut client = self.open().unwrap();
        assert!(matches!(client.0.read().unwrap(), Message::Binary(_)), "the first message is binary");
        client
    }

    pub fn open(&self) -> Result<Client, Box<Error>> {
        let (socket, _) =
            tungstenite::client(format!("ws://{}/", self.address), self.stream()).map_err(|e| match e {
                tungstenite::HandshakeError::Failure(e) => Box::new(e),
                tungstenite::HandshakeError::Interrupted(_) => panic!("the handshake took too long"),
            })?;
        Ok(Client(socket))
    }

    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}

/// A message that a client heard.
#[derive(Debug, PartialEq)]
pub enum Heard {
    Chunk(Vec<u8>),
    Words(String),
    Closed(Option<u16>),
    Pong,
}

pub struct Client(pub WebSocket<TcpStream>);

impl Client {
    pub fn send(&mut self, message: Vec<u8>) {
        self.0.send(Message::Binary(message.into())).unwrap();
    }

    /// The next thing that is heard. Pings of the server are not.
    pub fn hear(&mut self) -> Heard {
        loop {
            return match self.0.read() {
                Ok(Message::Binary(message)) => Heard::Chunk(message.to_vec()),
                Ok(Message::Text(words)) => Heard::Words(words.to_string()),
                Ok(Message::Close(frame)) => Heard::Closed(frame.map(|f| CloseCode::into(f.code))),
                Ok(Message::Pong(_)) => Heard::Pong,
                Ok(_) => continue,
                Err(Error::Io(e))
                    if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
                {
                    panic!("no answer within {PATIENCE:?}")
                }
                Err(_) => Heard::Closed(None),
            };
        }
    }

    pub fn ask(&mut self, message: Vec<u8>) -> Heard {
        self.send(message);
        self.hear()
    }
}
