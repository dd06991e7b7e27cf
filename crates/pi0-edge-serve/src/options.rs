//! Options of a server.

use std::net::SocketAddr;
use std::time::Duration;

use crate::names::Embodiment;

/// Time for a client to open a websocket.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// Most bytes of the request that opens a websocket.
pub const MAX_HEAD: usize = 16 << 10;
/// Time between two pings to a client.
pub const PING_EVERY: Duration = Duration::from_secs(20);
/// Pings that a client may leave unanswered.
pub const MAX_UNANSWERED: u32 = 2;
/// Time for a client to take what was sent to it.
pub const MAX_STALL: Duration = Duration::from_secs(60);
/// Time for a client to say goodbye.
pub(crate) const LINGER: Duration = Duration::from_secs(2);
/// Requests that a client may send ahead of answers before it is no longer read.
pub(crate) const MAX_AHEAD: usize = 8;

/// Options of a server.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address to listen on; port 0 for any that is free.
    pub listen: SocketAddr,
    /// The key that clients must give, as `Authorization: Api-Key KEY`; none: any client is served.
    pub api_key: Option<String>,
    /// Most bytes of a message. A client can make the server hold three times this.
    pub max_message: usize,
    /// Most clients at once; further ones are told to come back later.
    pub max_clients: usize,
    /// The seed of the first request that brings neither seed nor noise; each such request takes the next.
    pub seed: u64,
    /// Euler steps where a request does not say; the bundle's when absent.
    pub num_steps: Option<usize>,
    /// The task where a request does not say; the bundle's when absent.
    pub prompt: Option<String>,
    /// Further names of cameras: the client's, then the bundle's.
    pub rename: Vec<(String, String)>,
    /// The robot whose names are known too.
    pub embodiment: Option<Embodiment>,
    /// Entries to add to the message that a client gets first.
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// Time between two lines of figures on stderr; none: no such lines.
    pub metrics_every: Option<Duration>,
}
