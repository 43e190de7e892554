//! An endpoint that takes nothing, or little, beside others.

use std::time::Duration;

use bytes::Bytes;
use tunnel::{Action, Closing, ConnectionId, Limits, Packet, Tunnel};

const MEBIBYTE: usize = 1 << 20;

struct Pair {
    tunnel: Tunnel,
    now: Duration,
}

impl Pair {
    fn open(limits: Limits, count: i64) -> Pair {
        let mut pair = Pair { tunnel: Tunnel::new(limits, 1), now: Duration::ZERO };
        for random in 1..=count {
            let dial = Packet::DialRequest { protocol: "tcp".into(), address: "a:1".into(), random };
            pair.tunnel.packet(pair.now, dial);
            assert!(pair.tunnel.dialed(pair.now, ConnectionId(random)));
            let answer = Packet::DialResponse { error: String::new(), connect_id: random, random };
            assert_eq!(pair.tunnel.next_packet(pair.now), Some(answer));
        }
        pair.actions();
        pair
    }

    fn data(&mut self, id: i64, bytes: usize) {
        let data = Bytes::from(vec![1; bytes]);
        self.tunnel.packet(self.now, Packet::Data { connect_id: id, error: String::new(), data });
    }

    fn actions(&mut self) -> Vec<Action> {
        assert_eq!(self.tunnel.check(), Ok(()));
        std::iter::from_fn(|| self.tunnel.next_action()).collect()
    }

    fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        self.tunnel.timeout(self.now);
    }
}

#[test]
fn an_endpoint_that_takes_nothing_is_given_up_after_its_patience() {
    let mut pair = Pair::open(Limits::default(), 2);
    for _ in 0..128 {
        assert!(pair.tunnel.takes_packets());
        pair.data(1, 64 << 10);
    }
    assert!(pair.tunnel.takes_packets());
    pair.data(1, 1);
    assert!(!pair.tunnel.takes_packets());
    assert_eq!(pair.tunnel.wake_at(), Some(Duration::from_millis(250)));
    pair.pass(249);
    assert!(!pair.tunnel.takes_packets());
    pair.pass(1);
    let actions = pair.actions();
    assert!(actions.contains(&Action::Close(ConnectionId(1), Closing::GiveUp)), "{actions:?}");
    assert!(actions.contains(&Action::Resume) && pair.tunnel.takes_packets());
    let farewell =
        Packet::CloseResponse { error: "the endpoint takes data too slowly".into(), connect_id: 1 };
    assert_eq!(pair.tunnel.next_packet(pair.now), Some(farewell));
    assert_eq!((pair.tunnel.counts().slow, pair.tunnel.connections()), (1, 1));
}

/// A hundred megabytes through an endpoint at 2 MiB/s: nothing is lost, and each hold is short.
#[test]
fn a_slow_upload_goes_on_at_its_own_speed() {
    let mut pair = Pair::open(Limits::default(), 2);
    let (mut given, mut taken) = (0, 0);
    let mut held_millis = 0;
    while taken < 100 * MEBIBYTE {
        while pair.tunnel.takes_packets() && given < 100 * MEBIBYTE {
            pair.data(1, 32 << 10);
            given += 32 << 10;
        }
        pair.pass(1);
        held_millis += 1;
        assert!(held_millis < 250);
        let mut left = 2 * MEBIBYTE / 1000;
        while left > 0 {
            let Some(front) = pair.tunnel.front(ConnectionId(1)) else { break };
            let count = front.len().min(left);
            pair.tunnel.wrote(pair.now, ConnectionId(1), count);
            taken += count;
            left -= count;
        }
        let actions = pair.actions();
        assert!(!actions.iter().any(|action| matches!(action, Action::Close(..))));
        if actions.contains(&Action::Resume) || given == 100 * MEBIBYTE {
            held_millis = 0;
        }
    }
    assert_eq!((given, taken, pair.tunnel.counts().slow), (100 * MEBIBYTE, 100 * MEBIBYTE, 0));
}

/// Many endpoints below their own bounds can be too much together: those with the most go, and only as many as it
/// takes.
#[test]
fn all_endpoints_together_have_a_bound() {
    let mut pair = Pair::open(Limits::default(), 20);
    let mut most = 0;
    for _ in 0..4 {
        for id in 1..=20 {
            while !pair.tunnel.takes_packets() {
                pair.pass(250);
            }
            pair.data(id, MEBIBYTE + id as usize);
            most = most.max(pair.tunnel.connections());
        }
    }
    while !pair.tunnel.takes_packets() {
        pair.pass(250);
    }
    let gone = pair.actions().iter().filter(|action| matches!(action, Action::Close(..))).count();
    assert_eq!(gone as u64, pair.tunnel.counts().slow);
    assert!((1..=10).contains(&gone), "{gone}");
}

#[test]
fn reads_larger_than_a_packet_are_cut() {
    let mut pair = Pair::open(Limits::default(), 1);
    pair.tunnel.received(pair.now, ConnectionId(1), Bytes::from(vec![1; 70_000]));
    let sizes: Vec<usize> = std::iter::from_fn(|| pair.tunnel.next_packet(pair.now))
        .map(|packet| match packet {
            Packet::Data { data, .. } => data.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sizes, [32_768, 32_768, 4_464]);
}

#[test]
fn an_outcome_that_nobody_waits_for_closes_what_was_opened() {
    let mut pair = Pair::open(Limits::default(), 0);
    pair.tunnel
        .packet(pair.now, Packet::DialRequest { protocol: "tcp".into(), address: "a:1".into(), random: 9 });
    pair.tunnel.packet(pair.now, Packet::CloseDial { random: 9 });
    assert_eq!(pair.actions().last(), Some(&Action::CancelDial { id: ConnectionId(1), timed_out: false }));
    assert!(!pair.tunnel.dialed(pair.now, ConnectionId(1)));
    // Just established: closed as if the server had asked.
    pair.tunnel
        .packet(pair.now, Packet::DialRequest { protocol: "tcp".into(), address: "a:1".into(), random: 9 });
    assert!(pair.tunnel.dialed(pair.now, ConnectionId(2)));
    pair.tunnel.packet(pair.now, Packet::CloseDial { random: 9 });
    assert_eq!(pair.actions().last(), Some(&Action::Shutdown(ConnectionId(2))));
    pair.tunnel.ended(pair.now, ConnectionId(2));
    assert_eq!(pair.actions(), [Action::Close(ConnectionId(2), Closing::Finish)]);
    let kinds: Vec<_> =
        std::iter::from_fn(|| pair.tunnel.next_packet(pair.now)).map(|p| p.kind().name()).collect();
    assert_eq!(kinds, ["DIAL_RSP", "CLOSE_RSP"]);
    assert_eq!(pair.tunnel.connections(), 0);
}

#[test]
fn a_dial_that_takes_too_long_is_answered_in_go_s_words() {
    let mut pair = Pair::open(Limits::default(), 0);
    pair.tunnel.packet(
        pair.now,
        Packet::DialRequest { protocol: "tcp".into(), address: "10.0.0.1:80".into(), random: 9 },
    );
    pair.actions();
    assert_eq!(pair.tunnel.wake_at(), Some(Duration::from_secs(5)));
    pair.pass(5_000);
    assert_eq!(pair.actions(), [Action::CancelDial { id: ConnectionId(1), timed_out: true }]);
    let answer =
        Packet::DialResponse { error: "dial tcp 10.0.0.1:80: i/o timeout".into(), connect_id: 0, random: 9 };
    assert_eq!(pair.tunnel.next_packet(pair.now), Some(answer));
    assert_eq!((pair.tunnel.connections(), pair.tunnel.wake_at()), (0, None));
}
