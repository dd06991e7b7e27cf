//! Writing lines to a caller's file descriptor without ever waiting for its reader.

use super::status::{Fail, PI0_ERR_ARGUMENT, Result};

/// Bytes that a pipe takes in one piece when poll says that there is room; longer lines are cut.
const PIECE: usize = 4096;

/// A caller's file descriptor. It stays the caller's and is not closed.
///
/// Only threads that block SIGPIPE write to it: a reader that has gone must not end the program.
#[derive(Debug)]
pub(super) struct Descriptor {
    fd: i32,
    /// The end of a line that was taken in part.
    rest: Vec<u8>,
}

impl Descriptor {
    pub(super) fn new(fd: i32) -> Result<Self> {
        // SAFETY: F_GETFL has no argument and touches no memory.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
        if flags < 0 || flags & libc::O_ACCMODE == libc::O_RDONLY {
            let what = format!("{fd} is not a file descriptor open for writing");
            return Err(Fail::new(PI0_ERR_ARGUMENT, what));
        }
        Ok(Descriptor { fd, rest: Vec::new() })
    }

    /// Writes a line, or loses it if there is no room; false if it was lost. Lines stay whole.
    pub(super) fn write_line(&mut self, mut line: String) -> bool {
        if line.len() > PIECE {
            let end = (0..PIECE).rev().find(|&n| line.is_char_boundary(n)).unwrap_or(0);
            line.truncate(end);
            line.push('\n');
        }
        let rest = std::mem::take(&mut self.rest);
        let written = self.write(&rest);
        if written < rest.len() {
            self.rest = rest[written..].to_vec();
            return false;
        }
        let written = self.write(line.as_bytes());
        if written > 0 {
            self.rest = line.as_bytes()[written..].to_vec();
        }
        written > 0
    }

    /// Writes what there is room for at once, and says how much that was.
    fn write(&self, bytes: &[u8]) -> usize {
        let mut poll = libc::pollfd { fd: self.fd, events: libc::POLLOUT, revents: 0 };
        // SAFETY: one pollfd, valid to write to; a timeout of 0 is no waiting.
        let ready = unsafe { libc::poll(&mut poll, 1, 0) };
        if bytes.is_empty() || ready != 1 || poll.revents & libc::POLLOUT == 0 {
            return 0;
        }
        let (data, len) = (bytes.as_ptr().cast(), bytes.len());
        // A stream socket with some room would wait for more; MSG_DONTWAIT is for sockets alone.
        // SAFETY: `bytes` is valid for its length, here and below.
        let mut written = unsafe { libc::send(self.fd, data, len, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
        if written < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOTSOCK) {
            // SAFETY: as above.
            written = unsafe { libc::write(self.fd, data, len) };
        }
        usize::try_from(written).unwrap_or(0)
    }
}
