//! A server, endpoints and a clock around a tunnel. Every promise is checked when it falls due.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tunnel::{Action, Closing, ConnectionId, Limits, Packet, Tunnel};

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Dial,
    DialAgain,
    DialTooLong,
    Dialed(u8),
    DialFailed(u8),
    Data(u8, usize),
    DataRegardless(u8, usize),
    CloseRequest(u8),
    CloseDial(u8),
    Stray(i64),
    Junk,
    Receive(u8, usize),
    Write(u8, usize),
    Ended(u8),
    WriteFailed(u8),
    Pass(Duration),
    Send(usize),
    Drain,
}

/// What the endpoint's side of a connection looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Socket {
    Dialing,
    Open,
    Closed,
}

#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is one promise")]
struct Link {
    random: i64,
    socket: Socket,
    shut: bool,
    ended: bool,
    deaf: bool,
    gave_up: bool,
    /// The server was told of it, and not yet of its end.
    known: bool,
    server_closed: bool,
    /// Bytes in each direction: given to the tunnel, and come out of it.
    to_endpoint: (usize, usize),
    to_server: (usize, usize),
    reading_refused: bool,
}

#[derive(Debug)]
pub(crate) struct World {
    tunnel: Tunnel,
    limits: Limits,
    now: Duration,
    links: BTreeMap<i64, Link>,
    /// Dials without an outcome, and whether the server still wants one.
    waiting: BTreeMap<i64, bool>,
    next_random: i64,
    held_since: Option<Duration>,
    drained: usize,
    asked_to_drain: bool,
}

/// Each byte says which connection, direction and place it belongs to.
fn pattern(id: i64, salt: u64, from: usize, count: usize) -> Bytes {
    let byte = |at: usize| (id as u64).wrapping_mul(31).wrapping_add(salt).wrapping_add(at as u64 * 7) as u8;
    (from..from + count).map(byte).collect::<Vec<u8>>().into()
}

impl World {
    pub(crate) fn new(limits: Limits) -> Self {
        World {
            tunnel: Tunnel::new(limits.clone(), 1_000),
            limits,
            now: Duration::from_secs(7),
            links: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_random: 1,
            held_since: None,
            drained: 0,
            asked_to_drain: false,
        }
    }

    pub(crate) fn dials(&self) -> i64 {
        self.next_random - 1
    }

    pub(crate) fn step(&mut self, step: &Step) {
        self.quick_step(step);
        assert_eq!(self.tunnel.check(), Ok(()), "after {step:?}");
    }

    pub(crate) fn quick_step(&mut self, step: &Step) {
        match *step {
            Step::Dial => self.dial("a:1"),
            Step::DialTooLong => self.dial("a-name-that-is-too-long:1"),
            Step::DialAgain => {
                let random =
                    self.links.values().find(|link| link.socket == Socket::Dialing).map(|link| link.random);
                if let Some(random) = random {
                    self.packet(Packet::DialRequest {
                        protocol: "tcp".into(),
                        address: "b:1".into(),
                        random,
                    });
                }
            }
            Step::Dialed(which) => self.end_dial(which, true),
            Step::DialFailed(which) => self.end_dial(which, false),
            Step::Data(which, count) => {
                if self.tunnel.takes_packets() {
                    self.data(which, count);
                }
            }
            Step::DataRegardless(which, count) => self.data(which, count),
            Step::CloseRequest(which) => {
                if let Some(id) = self.pick(which, |link| link.known) {
                    self.link(id).server_closed = true;
                    self.packet(Packet::CloseRequest { connect_id: id });
                }
            }
            Step::CloseDial(which) => self.close_dial(which),
            Step::Stray(id) => {
                let id = if self.links.contains_key(&id) { 0 } else { id };
                self.packet(Packet::Data {
                    connect_id: id,
                    error: String::new(),
                    data: Bytes::from_static(b"x"),
                });
                self.packet(Packet::CloseRequest { connect_id: id });
            }
            Step::Junk => {
                self.packet(Packet::Unknown { number: 17 });
                self.packet(Packet::CloseResponse { error: String::new(), connect_id: 3 });
                self.packet(Packet::Drain);
            }
            Step::Receive(which, count) => self.receive(which, count),
            Step::Write(which, count) => self.write(which, count),
            Step::Ended(which) => {
                if let Some(id) = self.pick(which, |link| link.socket == Socket::Open && !link.ended) {
                    self.link(id).ended = true;
                    self.tunnel.ended(self.now, ConnectionId(id));
                }
            }
            Step::WriteFailed(which) => {
                if let Some(id) = self.pick(which, |link| link.socket == Socket::Open && !link.deaf) {
                    self.link(id).deaf = true;
                    self.tunnel.write_failed(self.now, ConnectionId(id));
                }
            }
            Step::Pass(span) => self.pass(span),
            Step::Send(count) => {
                for _ in 0..count {
                    if !self.send() {
                        break;
                    }
                }
            }
            Step::Drain => {
                self.asked_to_drain = true;
                self.tunnel.drain();
            }
        }
        self.settle();
    }

    /// The stream ends: nothing remains, and every socket is closed at once.
    pub(crate) fn lose(&mut self) {
        self.tunnel.lost();
        self.settle();
        assert!(self.links.values().all(|link| link.socket == Socket::Closed));
        assert_eq!(self.tunnel.connections(), 0);
        assert!(self.tunnel.takes_packets());
        assert_eq!((self.tunnel.wake_at(), self.tunnel.next_packet(self.now)), (None, None));
        self.packet(Packet::DialRequest { protocol: "tcp".into(), address: "a:1".into(), random: -1 });
        assert_eq!((self.tunnel.next_action(), self.tunnel.connections()), (None, 0));
        assert_eq!(self.tunnel.check(), Ok(()));
    }

    /// The server closes what it knows, the endpoints take what waits, time passes: nothing remains.
    pub(crate) fn finish(&mut self) {
        self.pass(self.limits.dial);
        self.settle();
        for id in self.links.iter().filter(|(_, link)| link.known).map(|(id, _)| *id).collect::<Vec<_>>() {
            if self.link(id).known {
                self.link(id).server_closed = true;
                self.packet(Packet::CloseRequest { connect_id: id });
            }
        }
        self.settle();
        for round in 0..10 {
            while self.send() {}
            for which in 0..=u8::MAX {
                self.write(which, usize::MAX);
            }
            self.settle();
            let known: Vec<i64> =
                self.links.iter().filter(|(_, link)| link.known).map(|(id, _)| *id).collect();
            for id in known {
                if !self.link(id).server_closed {
                    self.link(id).server_closed = true;
                    self.packet(Packet::CloseRequest { connect_id: id });
                }
            }
            if round > 0 {
                self.pass(self.limits.flush);
            }
            self.settle();
        }
        assert_eq!(self.tunnel.check(), Ok(()));
        assert_eq!(self.tunnel.connections(), 0, "{:?}", self.tunnel);
        assert_eq!(self.tunnel.wake_at(), None);
        assert!(!self.tunnel.has_packet() && self.tunnel.takes_packets());
        assert!(self.links.is_empty(), "{:?}", self.links);
        assert!(
            self.waiting.is_empty() || self.tunnel.counts().unanswered > 0,
            "unanswered: {:?}",
            self.waiting
        );
        assert_eq!(self.drained, usize::from(self.asked_to_drain));
    }

    fn link(&mut self, id: i64) -> &mut Link {
        self.links.get_mut(&id).expect("a link that exists")
    }

    fn pick(&self, which: u8, among: impl Fn(&Link) -> bool) -> Option<i64> {
        let candidates: Vec<i64> =
            self.links.iter().filter(|(_, link)| among(link)).map(|(id, _)| *id).collect();
        candidates.get(usize::from(which) % candidates.len().max(1)).copied()
    }

    fn packet(&mut self, packet: Packet) {
        self.tunnel.packet(self.now, packet);
        // A hold lasts at most as long as the patience: `pass` wakes the tunnel in time.
        self.held_since = match (self.tunnel.takes_packets(), self.held_since) {
            (true, _) => None,
            (false, since) => since.or(Some(self.now)),
        };
    }

    fn dial(&mut self, address: &str) {
        let random = self.next_random;
        self.next_random += 1;
        self.waiting.insert(random, true);
        self.packet(Packet::DialRequest { protocol: "tcp".into(), address: address.into(), random });
    }

    fn end_dial(&mut self, which: u8, good: bool) {
        let Some(id) = self.pick(which, |link| link.socket == Socket::Dialing) else { return };
        if good {
            assert!(self.tunnel.dialed(self.now, ConnectionId(id)));
            self.link(id).socket = Socket::Open;
            assert!(!self.tunnel.dialed(self.now, ConnectionId(id)));
        } else {
            self.tunnel.dial_failed(self.now, ConnectionId(id), "connection refused".into());
            self.link(id).socket = Socket::Closed;
        }
    }

    fn close_dial(&mut self, which: u8) {
        let randoms: Vec<i64> = self.links.values().map(|link| link.random).collect();
        let Some(random) = randoms.get(usize::from(which) % randoms.len().max(1)).copied() else { return };
        if let Some(wanted) = self.waiting.get_mut(&random) {
            *wanted = false;
        }
        for link in self.links.values_mut().filter(|link| link.random == random) {
            link.server_closed = true;
        }
        self.packet(Packet::CloseDial { random });
    }

    fn data(&mut self, which: u8, count: usize) {
        let Some(id) = self.pick(which, |link| link.known && !link.server_closed) else { return };
        let from = self.link(id).to_endpoint.0;
        let data = pattern(id, 1, from, count);
        let link = self.link(id);
        if link.socket == Socket::Open && !link.deaf {
            link.to_endpoint.0 += count;
        }
        self.packet(Packet::Data { connect_id: id, error: String::new(), data });
    }

    fn receive(&mut self, which: u8, count: usize) {
        let Some(id) = self.pick(which, |link| link.socket == Socket::Open && !link.ended) else { return };
        if !self.tunnel.may_read(ConnectionId(id)) {
            self.link(id).reading_refused = true;
            return;
        }
        // One read is one packet at most.
        let count = count.min(self.limits.packet_bytes);
        let link = self.link(id);
        link.reading_refused = false;
        let from = link.to_server.0;
        if !link.server_closed {
            link.to_server.0 += count;
        }
        self.tunnel.received(self.now, ConnectionId(id), pattern(id, 2, from, count));
    }

    fn write(&mut self, which: u8, count: usize) {
        let Some(id) = self.pick(which, |link| link.socket == Socket::Open && !link.deaf) else { return };
        let mut left = count;
        while left > 0 {
            let Some(front) = self.tunnel.front(ConnectionId(id)) else { break };
            let (given, taken) = self.link(id).to_endpoint;
            assert!(taken + front.len() <= given && !front.is_empty());
            assert_eq!(front, pattern(id, 1, taken, front.len()));
            let wrote = front.len().min(left);
            self.link(id).to_endpoint.1 += wrote;
            left -= wrote;
            self.tunnel.wrote(self.now, ConnectionId(id), wrote);
        }
    }

    fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(at) = self.tunnel.wake_at().filter(|at| *at <= until) {
            assert!(at >= self.now, "asks to be woken in the past");
            self.now = at;
            self.tunnel.timeout(at);
            self.settle();
            assert!(self.tunnel.wake_at().is_none_or(|next| next > at), "does nothing when woken");
        }
        self.now = until;
        if let Some(since) = self.held_since
            && !self.tunnel.takes_packets()
        {
            // Held longer only for the next one in question.
            assert!(until < since + self.limits.patience * (self.links.len() as u32 + 1));
        }
    }

    /// Takes one packet, as the server does.
    fn send(&mut self) -> bool {
        let had = self.tunnel.has_packet();
        let Some(packet) = self.tunnel.next_packet(self.now) else {
            assert!(!had, "says that there is a packet");
            return false;
        };
        match packet {
            Packet::Drain => self.drained += 1,
            Packet::DialResponse { error, connect_id, random } => {
                let _wanted = self.waiting.remove(&random).expect("an outcome for a dial that waits for one");
                if error.is_empty() {
                    let link = self.link(connect_id);
                    assert!(!link.known && link.random == random);
                    link.known = true;
                } else {
                    assert_eq!(connect_id, 0);
                    self.links.retain(|_, link| link.random != random || link.socket != Socket::Closed);
                }
            }
            Packet::Data { connect_id, data, .. } => {
                assert!(!data.is_empty() && data.len() <= self.limits.packet_bytes);
                let link = self.link(connect_id);
                assert!(link.known && !link.server_closed, "data of a connection that the server knows");
                let from = link.to_server.1;
                link.to_server.1 += data.len();
                assert!(link.to_server.1 <= link.to_server.0);
                assert_eq!(data, pattern(connect_id, 2, from, data.len()));
            }
            Packet::CloseResponse { error, connect_id } if error.contains("connectID") => {
                assert!(self.links.get(&connect_id).is_none_or(|link| !link.known), "denies a connection");
            }
            Packet::CloseResponse { connect_id, .. } => {
                let link = self.link(connect_id);
                assert!(link.known, "an end told twice, or before the beginning");
                link.known = false;
                assert!(
                    link.server_closed || link.to_server.0 == link.to_server.1,
                    "data lost at the end: {link:?}"
                );
                self.forget(connect_id);
            }
            other => panic!("an agent does not send {other:?}"),
        }
        self.settle();
        true
    }

    fn forget(&mut self, id: i64) {
        if self.links.get(&id).is_some_and(|link| {
            link.socket == Socket::Closed && !link.known && !self.waiting.contains_key(&link.random)
        }) {
            self.links.remove(&id);
        }
    }

    /// Does what the tunnel asks for.
    fn settle(&mut self) {
        while let Some(action) = self.tunnel.next_action() {
            match action {
                Action::Dial { id: ConnectionId(id), .. } => {
                    let random = *self.waiting.keys().next_back().expect("a dial that was asked for");
                    let link = Link {
                        random,
                        socket: Socket::Dialing,
                        shut: false,
                        ended: false,
                        deaf: false,
                        gave_up: false,
                        known: false,
                        server_closed: false,
                        to_endpoint: (0, 0),
                        to_server: (0, 0),
                        reading_refused: false,
                    };
                    assert!(self.links.insert(id, link).is_none(), "a number used twice");
                }
                Action::CancelDial { id: ConnectionId(id), timed_out } => {
                    let link = self.link(id);
                    assert_eq!(link.socket, Socket::Dialing);
                    link.socket = Socket::Closed;
                    let random = link.random;
                    if !timed_out {
                        // The server does not wait any more.
                        self.waiting.remove(&random);
                        self.links.remove(&id);
                    }
                }
                Action::Write(ConnectionId(id)) => {
                    let link = self.link(id);
                    assert!(link.socket == Socket::Open && !link.deaf);
                }
                Action::Read(ConnectionId(id)) => {
                    let link = self.link(id);
                    assert!(link.socket == Socket::Open && link.reading_refused, "{link:?}");
                    link.reading_refused = false;
                }
                Action::Shutdown(ConnectionId(id)) => {
                    let link = self.link(id);
                    assert!(link.socket == Socket::Open && !link.shut && link.server_closed);
                    assert!(
                        link.deaf || link.to_endpoint.0 == link.to_endpoint.1,
                        "shut before all was written"
                    );
                    link.shut = true;
                }
                Action::Close(ConnectionId(id), closing) => {
                    let link = self.link(id);
                    assert_eq!(link.socket, Socket::Open, "closed twice, or before it was open");
                    link.socket = Socket::Closed;
                    link.gave_up = closing != Closing::Finish;
                    if closing == Closing::Finish {
                        assert!(
                            link.deaf || link.to_endpoint.0 == link.to_endpoint.1,
                            "closed before all was written"
                        );
                    }
                    self.forget(id);
                }
                Action::Resume => {
                    assert!(self.tunnel.takes_packets());
                    self.held_since = None;
                }
            }
        }
    }
}
