//! One client: its requests are read while a chunk is computed, so that its pings are answered.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use pi0_edge::Result as Computed;
use rustix::event::PollFlags;
use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Bytes, Error, Message, WebSocket};

use crate::inference::{Answer, Job, Reply, ms};
use crate::options::{LINGER, MAX_AHEAD, MAX_STALL, MAX_UNANSWERED, PING_EVERY};
use crate::request::Refusal;
use crate::waiting::{Bell, wait};
use crate::wire::response;
use crate::{Counted, Shared, handshake};

/// Frames that are read before answers are looked after again.
const FRAMES_AT_ONCE: usize = 64;

/// The end of a connection.
enum End {
    /// The client went, or cannot be spoken to any more.
    Gone(String),
    /// It is told why it is over, and that is to the client's account or not.
    Close(CloseCode, &'static str),
}

struct Connection<'a> {
    socket: WebSocket<TcpStream>,
    shared: &'a Shared,
    jobs: Sender<Job>,
    bell: Arc<Bell>,
    /// Requests whose sender has gone need not be computed.
    alive: Arc<()>,
    /// The request that is computed or waits to be, and when it was taken up.
    running: Option<(Receiver<Computed<Answer>>, Instant)>,
    ahead: VecDeque<Message>,
    ahead_bytes: usize,
    prev_total: Option<Duration>,
    next_ping: Instant,
    unanswered: u32,
    /// The time since when the client does not take what is sent.
    stalled: Option<Instant>,
}

/// Serves a client until it goes, is not to be served any longer, or the server stops.
pub(crate) fn serve(mut stream: TcpStream, peer: SocketAddr, shared: &Arc<Shared>, jobs: Sender<Job>) {
    let mut counted = None;
    let mut admit = || {
        let (client, clients) = Counted::new(shared, |metrics| &metrics.clients);
        counted = (clients <= shared.max_clients).then_some(client);
        counted.is_some()
    };
    let behind = match handshake::open(&mut stream, shared.api_key.as_deref(), &mut admit) {
        Ok(Some(behind)) => behind,
        Ok(None) => return,
        Err(e) => return log::debug!("{peer}: no websocket: {e}"),
    };
    let bell = match Bell::new() {
        Ok(bell) => Arc::new(bell),
        Err(e) => return log::error!("{peer}: cannot serve another client: {e}"),
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(shared.max_message))
        .max_frame_size(Some(shared.max_message))
        .max_write_buffer_size(16 << 20);
    let mut connection = Connection {
        socket: WebSocket::from_partially_read(stream, behind, Role::Server, Some(config)),
        shared,
        jobs,
        bell,
        alive: Arc::new(()),
        running: None,
        ahead: VecDeque::new(),
        ahead_bytes: 0,
        prev_total: None,
        next_ping: Instant::now() + PING_EVERY,
        unanswered: 0,
        stalled: None,
    };
    log::info!("{peer}: connected");
    match connection.talk() {
        End::Gone(why) => log::info!("{peer}: {why}"),
        End::Close(code, why) => {
            if code != CloseCode::Away {
                shared.metrics.drop_client();
            }
            log::info!("{peer}: closed with {}: {why}", u16::from(code));
            connection.close(code, why);
        }
    }
}

impl Connection<'_> {
    fn talk(&mut self) -> End {
        let greeting = Message::Binary(Bytes::from(self.shared.greeting.clone()));
        match self.write(greeting).and_then(|()| self.exchange()) {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    fn exchange(&mut self) -> Result<std::convert::Infallible, End> {
        loop {
            if self.shared.stopping() {
                return Err(End::Close(CloseCode::Away, "the server stops"));
            }
            self.bell.hear();
            self.answer()?;
            self.begin()?;
            let more = self.read()?;
            let was_full = self.is_full();
            self.begin()?;
            self.flush()?;
            self.look_after()?;
            // What there was no room for may be here already, and then no socket tells of it.
            if !more && was_full == self.is_full() {
                self.wait()?;
            }
        }
    }

    fn is_full(&self) -> bool {
        self.ahead.len() >= MAX_AHEAD || self.ahead_bytes >= self.shared.max_message
    }

    /// Reads what is there. Returns true if there may be more.
    fn read(&mut self) -> Result<bool, End> {
        for _ in 0..FRAMES_AT_ONCE {
            if self.is_full() {
                return Ok(false);
            }
            match self.socket.read() {
                Ok(message) => {
                    self.unanswered = 0;
                    if matches!(message, Message::Binary(_) | Message::Text(_)) {
                        self.ahead_bytes += message.len();
                        self.ahead.push_back(message);
                    }
                }
                Err(Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(end_of(e)),
            }
        }
        Ok(true)
    }

    /// Takes up the next request, unless one is being computed or the client does not take its answers.
    fn begin(&mut self) -> Result<(), End> {
        while self.running.is_none() && self.stalled.is_none() {
            let Some(message) = self.ahead.pop_front() else { break };
            self.ahead_bytes -= message.len();
            let Message::Binary(message) = message else {
                self.refuse("text is not taken; a request is one binary message of msgpack".into())?;
                return Err(End::Close(CloseCode::Unsupported, "text is not taken"));
            };
            let asked = Instant::now();
            let request = match self.shared.contract.read(&message) {
                Ok(request) => request,
                Err(Refusal::Observation(why)) => {
                    self.refuse(why)?;
                    continue;
                }
                Err(Refusal::Malformed(why)) => {
                    self.refuse(why)?;
                    return Err(End::Close(CloseCode::Invalid, "this is no request"));
                }
            };
            let (answer, answers) = channel();
            let reply = Reply::new(answer, &self.bell, &self.alive);
            if self.jobs.send(Job { request, asked, reply }).is_err() {
                return self.own_fault();
            }
            self.running = Some((answers, asked));
        }
        Ok(())
    }

    /// Sends the answer, if it is there.
    fn answer(&mut self) -> Result<(), End> {
        let Some((answers, asked)) = &self.running else { return Ok(()) };
        let asked = *asked;
        match answers.try_recv() {
            Err(TryRecvError::Empty) => return Ok(()),
            Err(TryRecvError::Disconnected) => return self.own_fault(),
            Ok(Err(e)) => self.refuse(e.to_string())?,
            Ok(Ok(answer)) => match response(&answer, self.prev_total.map(ms)) {
                Ok(message) => self.write(Message::Binary(message.into()))?,
                Err(_) => return self.own_fault(),
            },
        }
        self.running = None;
        self.flush()?;
        self.prev_total = Some(asked.elapsed());
        Ok(())
    }

    fn refuse(&mut self, why: String) -> Result<(), End> {
        self.shared.metrics.refuse();
        self.write(Message::Text(why.into()))
    }

    fn own_fault(&mut self) -> Result<(), End> {
        self.refuse("the server failed; its log says why".into())?;
        Err(End::Close(CloseCode::Error, "the server failed"))
    }

    fn write(&mut self, message: Message) -> Result<(), End> {
        match self.socket.write(message) {
            Err(Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            result => result.map_err(end_of),
        }
    }

    /// Sends what is written, as far as the client takes it.
    fn flush(&mut self) -> Result<(), End> {
        match self.socket.flush() {
            Ok(()) => self.stalled = None,
            Err(Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => {
                self.stalled.get_or_insert_with(Instant::now);
            }
            Err(e) => return Err(end_of(e)),
        }
        Ok(())
    }

    /// Sends a ping when it is time, and finds out who is not there any more.
    fn look_after(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if self.stalled.is_some_and(|since| now.duration_since(since) > MAX_STALL) {
            self.shared.metrics.drop_client();
            return Err(End::Gone("does not take what it is sent".into()));
        }
        if now >= self.next_ping {
            self.next_ping = now + PING_EVERY;
            // Of a client that is not read, nothing can have come.
            if !self.is_full() {
                if self.unanswered >= MAX_UNANSWERED {
                    self.shared.metrics.drop_client();
                    return Err(End::Gone(format!("nothing came since {} pings", self.unanswered)));
                }
                self.unanswered += 1;
                self.write(Message::Ping(Bytes::new()))?;
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Waits until something is to be done.
    fn wait(&mut self) -> Result<(), End> {
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::IN, !self.is_full());
        wanted.set(PollFlags::OUT, self.stalled.is_some());
        let fds: [(BorrowedFd<'_>, PollFlags); 3] = [
            (self.socket.get_ref().as_fd(), wanted),
            (self.bell.as_fd(), PollFlags::IN),
            (self.shared.stop.as_fd(), PollFlags::IN),
        ];
        let until = self.stalled.map_or(self.next_ping, |since| self.next_ping.min(since + MAX_STALL));
        match wait(fds, Some(until)) {
            Ok([client, ..]) if self.is_full() && client.intersects(PollFlags::HUP | PollFlags::ERR) => {
                Err(End::Gone("went away".into()))
            }
            Ok(_) => Ok(()),
            Err(e) => Err(End::Gone(format!("cannot wait for it: {e}"))),
        }
    }

    /// Says goodbye, and why.
    fn close(mut self, code: CloseCode, reason: &'static str) {
        let until = Instant::now() + LINGER;
        let mut done = self.socket.close(Some(CloseFrame { code, reason: reason.into() }));
        while let Err(Error::Io(e)) = &done
            && e.kind() == io::ErrorKind::WouldBlock
            && Instant::now() < until
        {
            let fd = self.socket.get_ref().as_fd();
            if wait([(fd, PollFlags::OUT)], Some(until)).is_err() {
                return;
            }
            done = self.socket.flush();
        }
        handshake::goodbye(self.socket.get_mut());
    }
}

fn end_of(error: Error) -> End {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => End::Gone("closed".into()),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            End::Gone("went without a word".into())
        }
        Error::Io(e) => End::Gone(format!("went away: {e}")),
        Error::Capacity(CapacityError::MessageTooLong { .. }) => End::Close(CloseCode::Size, "too large"),
        Error::Utf8(_) => End::Close(CloseCode::Invalid, "text is not UTF-8"),
        Error::WriteBufferFull(_) => End::Gone("does not take what it is sent".into()),
        _ => End::Close(CloseCode::Protocol, "this is no websocket's frame"),
    }
}
