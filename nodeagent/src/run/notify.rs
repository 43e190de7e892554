//! What systemd is told: that the worker is in service, and that the agent still turns.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// A line to systemd, where it listens.
#[derive(Debug)]
pub(crate) struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    last_status: String,
    ready: bool,
}

impl Notify {
    /// The line that the environment names.
    pub(crate) fn from_environment() -> Notify {
        let address = std::env::var("NOTIFY_SOCKET").ok().and_then(|path| match path.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name).ok(),
            None => SocketAddr::from_pathname(path).ok(),
        });
        let socket = address.and_then(|address| Some((UnixDatagram::unbound().ok()?, address)));
        Notify { socket, last_status: String::new(), ready: false }
    }

    /// Half of the span after which systemd takes the agent for stuck; none if it does not watch.
    pub(crate) fn watchdog() -> Option<Duration> {
        let read = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        if read("WATCHDOG_PID").is_some_and(|process| process != u64::from(std::process::id())) {
            return None;
        }
        read("WATCHDOG_USEC").filter(|micros| *micros > 1).map(|micros| Duration::from_micros(micros / 2))
    }

    /// Says that the agent turns.
    pub(crate) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// Says how far the worker is, if that is news.
    pub(crate) fn status(&mut self, status: &str, ready: bool) {
        if self.last_status != status {
            status.clone_into(&mut self.last_status);
            self.send(&format!("STATUS={status}"));
        }
        if ready && !self.ready {
            self.ready = true;
            self.send("READY=1");
        }
    }

    /// Says that the agent ends.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Whoever does not listen misses nothing that matters.
    fn send(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            let _sent = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}
