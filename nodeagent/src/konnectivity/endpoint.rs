//! Sockets to endpoints.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tunnel::ConnectionId;

use super::connect::prepare;
use super::metrics::Metrics;
use super::stream::{Shared, State};

/// A dial, and the socket that comes of it. Dropping it closes both.
pub(super) struct Link {
    /// Where to, for log lines.
    pub(super) address: String,
    task: AbortHandle,
    wake: Arc<Notify>,
    open: Option<Open>,
    /// The task waits for the socket to take more.
    blocked: bool,
}

struct Open {
    socket: Arc<TcpStream>,
    metrics: Arc<Metrics>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.endpoint_closed();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Closes our half.
    pub(super) fn shutdown(&self) {
        if let Some(open) = &self.open
            && let Err(error) = SockRef::from(&*open.socket).shutdown(std::net::Shutdown::Write)
        {
            tracing::debug!(%error, "an endpoint was gone before its connection was closed");
        }
    }

    /// Lets the socket end with a reset.
    pub(super) fn reset(&self) {
        if let Some(open) = &self.open
            && let Err(error) = SockRef::from(&*open.socket).set_linger(Some(Duration::ZERO))
        {
            tracing::debug!(%error, "an endpoint's connection cannot be reset");
        }
    }
}

/// Begins a dial.
pub(super) fn dial(shared: &Arc<Shared>, id: ConnectionId, protocol: String, address: String) -> Link {
    let wake = Arc::new(Notify::new());
    let task = tokio::spawn(serve(Arc::clone(shared), id, protocol, address.clone(), Arc::clone(&wake)));
    Link { address, task: task.abort_handle(), wake, open: None, blocked: false }
}

async fn serve(shared: Arc<Shared>, id: ConnectionId, protocol: String, address: String, wake: Arc<Notify>) {
    let began = Instant::now();
    let socket = match connect(&protocol, &address).await {
        Ok(socket) => Arc::new(socket),
        Err(error) => {
            tracing::debug!(%error, "dial failed");
            shared.metrics.dial_failed(false);
            shared.with(|state, now| {
                state.tunnel.dial_failed(now, id, error);
                state.links.remove(&id)
            });
            return;
        }
    };
    shared.metrics.dialed(began.elapsed());
    let wanted = shared.with(|state, now| {
        let Some(link) = state.links.get_mut(&id) else { return false };
        shared.metrics.endpoint_opened();
        link.open = Some(Open { socket: Arc::clone(&socket), metrics: Arc::clone(&shared.metrics) });
        state.tunnel.dialed(now, id)
    });
    if !wanted {
        return;
    }
    // Ends by being aborted, when the tunnel closes the connection.
    loop {
        let (may_read, blocked) = {
            let mut state = shared.state();
            let blocked = state.links.get(&id).is_some_and(|link| link.blocked);
            (state.tunnel.may_read(id), blocked)
        };
        tokio::select! {
            () = wake.notified() => {}
            _ready = socket.readable(), if may_read => shared.with(|state, now| read(state, now, id, &socket)),
            _ready = socket.writable(), if blocked => shared.with(|state, now| {
                if let Some(link) = state.links.get_mut(&id) {
                    link.blocked = false;
                }
                write(state, now, id);
            }),
        }
    }
}

fn read(state: &mut State, now: Duration, id: ConnectionId, socket: &TcpStream) {
    match socket.try_read(&mut state.scratch) {
        Ok(0) => state.tunnel.ended(now, id),
        Ok(count) => {
            let data = state.scratch.get(..count).map(Bytes::copy_from_slice).unwrap_or_default();
            state.tunnel.received(now, id, data);
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => {
            tracing::debug!(%error, "an endpoint's connection broke");
            state.tunnel.ended(now, id);
        }
    }
}

/// Writes what waits for an endpoint, as far as its socket takes it at once.
pub(super) fn write(state: &mut State, now: Duration, id: ConnectionId) {
    let Some(link) = state.links.get_mut(&id).filter(|link| !link.blocked) else { return };
    let Some(open) = &link.open else { return };
    while let Some(front) = state.tunnel.front(id) {
        match open.socket.try_write(&front) {
            Ok(count) => state.tunnel.wrote(now, id, count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                link.blocked = true;
                link.wake();
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "an endpoint takes no more data");
                state.tunnel.write_failed(now, id);
                return;
            }
        }
    }
}

/// Dials, and says in Go's words why not: servers look for them.
async fn connect(protocol: &str, address: &str) -> Result<TcpStream, String> {
    let fits = |candidate: &SocketAddr| match protocol {
        "tcp4" => candidate.is_ipv4(),
        "tcp6" => candidate.is_ipv6(),
        _ => true,
    };
    if !matches!(protocol, "tcp" | "tcp4" | "tcp6") {
        return Err(format!("dial {protocol}: unknown network {protocol}"));
    }
    let candidates: Vec<SocketAddr> = resolve(protocol, address).await?.into_iter().filter(fits).collect();
    let mut last = format!("dial {protocol} {address}: no suitable address found");
    for candidate in candidates {
        match TcpStream::connect(candidate).await.and_then(|socket| prepare(&socket).map(|()| socket)) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = format!("dial {protocol} {candidate}: connect: {}", in_go_s_words(&error)),
        }
    }
    Err(last)
}

async fn resolve(protocol: &str, address: &str) -> Result<Vec<SocketAddr>, String> {
    let malformed = |why: &str| format!("dial {protocol}: address {address}: {why}");
    let (host, port) = address.rsplit_once(':').ok_or_else(|| malformed("missing port in address"))?;
    let port: u16 = port.parse().map_err(|_| malformed("invalid port"))?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    // As in Go, no host is this one.
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    if let Ok(number) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(number, port)]);
    }
    match tokio::net::lookup_host((host, port)).await {
        Ok(found) => Ok(found.collect()),
        Err(error) => Err(format!("dial {protocol}: lookup {host}: no such host ({error})")),
    }
}

fn in_go_s_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "connection timed out: i/o timeout".to_owned(),
        // EMFILE and ENFILE have no kind of their own; the system's text has Go's words.
        _ => error.to_string().to_lowercase(),
    }
}
