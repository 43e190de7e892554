//! The encoding against `prost`, and what cannot be read.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use prost::Message;
use tunnel::Packet;
use tunnel::wire::{Deframer, MESSAGE_BYTES, WireError, decode, encode};

/// The messages as upstream's definition has them.
mod oracle {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Packet {
        #[prost(int32, tag = "1")]
        pub kind: i32,
        #[prost(oneof = "Payload", tags = "2, 3, 4, 5, 6, 7, 8")]
        pub payload: Option<Payload>,
    }
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(crate) enum Payload {
        #[prost(message, tag = "2")]
        DialRequest(DialRequest),
        #[prost(message, tag = "3")]
        DialResponse(DialResponse),
        #[prost(message, tag = "4")]
        Data(Data),
        #[prost(message, tag = "5")]
        CloseRequest(CloseRequest),
        #[prost(message, tag = "6")]
        CloseResponse(CloseResponse),
        #[prost(message, tag = "7")]
        CloseDial(CloseDial),
        #[prost(message, tag = "8")]
        Drain(Drain),
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct DialRequest {
        #[prost(string, tag = "1")]
        pub protocol: String,
        #[prost(string, tag = "2")]
        pub address: String,
        #[prost(int64, tag = "3")]
        pub random: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct DialResponse {
        #[prost(string, tag = "1")]
        pub error: String,
        #[prost(int64, tag = "2")]
        pub connect_id: i64,
        #[prost(int64, tag = "3")]
        pub random: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Data {
        #[prost(int64, tag = "1")]
        pub connect_id: i64,
        #[prost(string, tag = "2")]
        pub error: String,
        #[prost(bytes = "bytes", tag = "3")]
        pub data: bytes::Bytes,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct CloseRequest {
        #[prost(int64, tag = "1")]
        pub connect_id: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct CloseResponse {
        #[prost(string, tag = "1")]
        pub error: String,
        #[prost(int64, tag = "2")]
        pub connect_id: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct CloseDial {
        #[prost(int64, tag = "1")]
        pub random: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Drain {}
}

fn to_oracle(packet: &Packet) -> oracle::Packet {
    use oracle::Payload;
    let (kind, payload) = match packet.clone() {
        Packet::DialRequest { protocol, address, random } => {
            (0, Some(Payload::DialRequest(oracle::DialRequest { protocol, address, random })))
        }
        Packet::DialResponse { error, connect_id, random } => {
            (1, Some(Payload::DialResponse(oracle::DialResponse { error, connect_id, random })))
        }
        Packet::CloseRequest { connect_id } => {
            (2, Some(Payload::CloseRequest(oracle::CloseRequest { connect_id })))
        }
        Packet::CloseResponse { error, connect_id } => {
            (3, Some(Payload::CloseResponse(oracle::CloseResponse { error, connect_id })))
        }
        Packet::Data { connect_id, error, data } => {
            (4, Some(Payload::Data(oracle::Data { connect_id, error, data })))
        }
        Packet::CloseDial { random } => (5, Some(Payload::CloseDial(oracle::CloseDial { random }))),
        Packet::Drain => (6, Some(Payload::Drain(oracle::Drain {}))),
        Packet::Unknown { number } => (number, None),
    };
    oracle::Packet { kind, payload }
}

fn numbers() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), 0_i64..200, Just(0), Just(i64::MIN), Just(i64::MAX)]
}

fn packets() -> impl Strategy<Value = Packet> {
    let text = || "\\PC{0,20}";
    prop_oneof![
        (text(), text(), numbers()).prop_map(|(protocol, address, random)| Packet::DialRequest {
            protocol,
            address,
            random
        }),
        (text(), numbers(), numbers()).prop_map(|(error, connect_id, random)| Packet::DialResponse {
            error,
            connect_id,
            random
        }),
        numbers().prop_map(|connect_id| Packet::CloseRequest { connect_id }),
        (text(), numbers()).prop_map(|(error, connect_id)| Packet::CloseResponse { error, connect_id }),
        (numbers(), text(), prop::collection::vec(any::<u8>(), 0..40_000))
            .prop_map(|(connect_id, error, data)| Packet::Data { connect_id, error, data: data.into() }),
        numbers().prop_map(|random| Packet::CloseDial { random }),
        Just(Packet::Drain),
        prop_oneof![7_i32.., ..0_i32].prop_map(|number| Packet::Unknown { number }),
    ]
}

proptest! {
    #[test]
    fn prost_writes_and_reads_the_same(packet in packets()) {
        let mut ours = BytesMut::new();
        encode(&packet, &mut ours);
        let theirs = to_oracle(&packet).encode_to_vec();
        prop_assert_eq!(&ours[5..], &theirs[..]);
        prop_assert_eq!(&ours[..5], &[&[0][..], &(theirs.len() as u32).to_be_bytes()].concat()[..]);
        prop_assert_eq!(decode(Bytes::from(theirs)), Ok(packet));
    }

    #[test]
    fn messages_survive_being_cut_anywhere(packets in prop::collection::vec(packets(), 1..8), cuts in prop::collection::vec(1_usize..9_000, 1..50)) {
        let mut stream = BytesMut::new();
        for packet in &packets {
            encode(packet, &mut stream);
        }
        let mut stream = stream.freeze();
        let mut deframer = Deframer::default();
        let mut read = Vec::new();
        let mut cuts = cuts.iter().cycle();
        while !stream.is_empty() {
            let length = cuts.next().copied().unwrap_or(1).min(stream.len());
            deframer.push(stream.split_to(length));
            // Sometimes more arrives before anybody looks.
            if length % 3 != 0 {
                while let Some(message) = deframer.take().expect("well formed") {
                    read.push(decode(message).expect("well formed"));
                }
            }
        }
        while let Some(message) = deframer.take().expect("well formed") {
            read.push(decode(message).expect("well formed"));
        }
        prop_assert_eq!(read, packets);
        prop_assert_eq!(deframer.unfinished(), 0);
    }

    /// Whatever arrives is read or refused. Where prost reads it, so do we, and the other way round, but for groups,
    /// which nobody has sent for twenty years.
    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _any = decode(Bytes::from(bytes.clone()));
        let mut deframer = Deframer::default();
        deframer.push(Bytes::from(bytes));
        while let Ok(Some(message)) = deframer.take() {
            let _any = decode(message);
        }
    }

    #[test]
    fn a_damaged_message_is_read_as_prost_reads_it(packet in packets(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = to_oracle(&packet).encode_to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let (ours, theirs) = (decode(Bytes::from(bytes.clone())), oracle::Packet::decode(&bytes[..]));
        // A number that names no field of ours makes a payload without meaning, which counts as none.
        if let (Ok(ours), Ok(theirs)) = (ours, theirs) && to_oracle(&ours).payload.is_some() && theirs == to_oracle(&packet) {
            prop_assert_eq!(ours, packet);
        }
    }
}

#[test]
fn the_bytes_are_these() {
    for (packet, expected) in [
        (
            Packet::DialRequest { protocol: "tcp".into(), address: "a:1".into(), random: 300 },
            &[
                0, 0, 0, 0, 15, 0x12, 13, 0x0a, 3, b't', b'c', b'p', 0x12, 3, b'a', b':', b'1', 0x18, 0xac,
                0x02,
            ][..],
        ),
        (
            Packet::Data { connect_id: 1, error: String::new(), data: Bytes::from_static(b"xy") },
            &[0, 0, 0, 0, 10, 0x08, 4, 0x22, 6, 0x08, 1, 0x1a, 2, b'x', b'y'],
        ),
        (Packet::Drain, &[0, 0, 0, 0, 4, 0x08, 6, 0x42, 0]),
    ] {
        let mut out = BytesMut::new();
        encode(&packet, &mut out);
        assert_eq!(&out[..], expected, "{packet:?}");
    }
}

#[test]
fn the_type_decides_and_what_is_unknown_is_skipped() {
    for (bytes, expected) in [
        // No payload, or another type's: as one with nothing in it.
        (&[0x08, 4][..], Packet::Data { connect_id: 0, error: String::new(), data: Bytes::new() }),
        (&[0x08, 2, 0x22, 2, 0x08, 1], Packet::CloseRequest { connect_id: 0 }),
        (&[], Packet::DialRequest { protocol: String::new(), address: String::new(), random: 0 }),
        (&[0x08, 9], Packet::Unknown { number: 9 }),
        // Fields 9 (text), 10 (64 bits), 11 (32 bits) and 12 (number).
        (
            &[
                0x4a, 1, b'x', 0x51, 1, 2, 3, 4, 5, 6, 7, 8, 0x5d, 1, 2, 3, 4, 0x60, 5, 0x08, 2, 0x2a, 4,
                0x08, 7, 0x20, 1,
            ],
            Packet::CloseRequest { connect_id: 7 },
        ),
    ] {
        assert_eq!(decode(Bytes::from_static(bytes)), Ok(expected), "{bytes:?}");
    }
}

#[test]
fn what_is_refused_says_where() {
    for (bytes, expected) in [
        (&[0x08][..], WireError::Short(1)),
        (&[0x22, 5, 1], WireError::Short(4)),
        (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], WireError::Number),
        (&[0x0b], WireError::WireType { field: 1, wire_type: 3 }),
        (&[0x00, 1], WireError::WireType { field: 0, wire_type: 0 }),
        (&[0x20, 1], WireError::WireType { field: 4, wire_type: 0 }),
        (&[0x08, 1, 0x1a, 3, 0x0a, 1, 0xff], WireError::Text(1)),
        (&[0x08, 2, 0x2a, 2, 0x0a, 0], WireError::WireType { field: 1, wire_type: 2 }),
    ] {
        assert_eq!(decode(Bytes::from_static(bytes)), Err(expected), "{bytes:?}");
    }
    let take = |bytes: Vec<u8>| {
        let mut deframer = Deframer::default();
        deframer.push(bytes.into());
        deframer.take()
    };
    assert_eq!(take(vec![1, 0, 0, 0, 0]), Err(WireError::Compressed(1)));
    assert_eq!(take(vec![0, 0, 0x40, 0, 1]), Err(WireError::TooLong(MESSAGE_BYTES + 1)));
    assert_eq!(take(vec![0, 0, 0x40, 0]), Ok(None));
}
