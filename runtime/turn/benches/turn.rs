//! What a turn costs per command beside the machine's own step: lookup of the id, record of the answer, input,
//! events and answers as JSON, chain hash. And what decoding costs before it.
//!
//! `cargo bench -p turn`. CPU time of the thread, best of several runs of the same commands.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a report; what fails ends it")]

use bytes::Bytes;
use proto::machine::Received;
use proto::{Machine, StreamName, Timestamp};
use turn::testing::{Tally, TallyCommand};
use turn::{Decoded, Delivery, Position, Settings, Turn, decode};

const ENVELOPES: u64 = 200;
const COMMANDS: u64 = 1_024;
const RUNS: usize = 5;

fn stream() -> StreamName {
    "main".parse().unwrap()
}

fn deliveries() -> Vec<Delivery> {
    let add = |id: u64| format!(r#"{{"type":"Add","id":"c{id}","tenant":"t{}","amount":1}}"#, id % 1_000);
    let delivery = |envelope: u64| {
        let commands: Vec<_> = (0..COMMANDS).map(|place| add(envelope * COMMANDS + place)).collect();
        Delivery {
            subject: "walras.v1.command.tally.main.storefront.s1".to_owned(),
            position: Position { created: 1, sequence: envelope + 1 },
            payload: Bytes::from(format!(r#"{{"commands":[{}]}}"#, commands.join(","))),
        }
    };
    (0..ENVELOPES).map(delivery).collect()
}

/// CPU time of this thread so far, in nanoseconds, as Linux tells it.
fn cpu_nanos() -> u128 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap()
}

/// Best of several runs, in nanoseconds per command.
fn best(mut run: impl FnMut() -> u128) -> f64 {
    let nanos = (0..RUNS).map(|_| run()).min().unwrap_or(0);
    nanos as f64 / (ENVELOPES * COMMANDS) as f64
}

fn main() {
    let stream = stream();
    let deliveries = deliveries();
    let decoded: Vec<Decoded<TallyCommand>> =
        deliveries.iter().map(|it| decode::<Tally>(&stream, it.clone())).collect();
    let decoding = best(|| {
        let begun = cpu_nanos();
        for delivery in &deliveries {
            std::hint::black_box(decode::<Tally>(&stream, delivery.clone()));
        }
        cpu_nanos() - begun
    });
    let sender = proto::subject::CommandSubject::parse(&deliveries[0].subject).unwrap().sender;
    let received: Vec<Received<TallyCommand>> = deliveries
        .iter()
        .flat_map(|it| proto::decode::commands::<TallyCommand>(&it.payload).unwrap())
        .map(|command| Received::new(sender.clone(), command.unwrap()))
        .collect();
    let stepping = best(|| {
        let mut machine = Tally::new(&stream);
        let mut events = Vec::new();
        let begun = cpu_nanos();
        for (number, batch) in (0..).zip(received.chunks(COMMANDS as usize)) {
            events.clear();
            let now = Timestamp::from_micros(number);
            for command in batch {
                machine.step(now, command, &mut events);
            }
            machine.wake(now, &mut events);
        }
        cpu_nanos() - begun
    });
    let mut rows = Vec::new();
    let turning = best(|| {
        let mut turn = Turn::<Tally>::new(stream.clone(), Settings::default());
        let batches = decoded.clone();
        rows.clear();
        let begun = cpu_nanos();
        for (number, delivery) in (0..).zip(batches) {
            let turned = turn.turn(Timestamp::from_micros(number), vec![delivery]).unwrap();
            rows.extend(turned.row);
        }
        cpu_nanos() - begun
    });
    let folding = best(|| {
        let mut turn = Turn::<Tally>::new(stream.clone(), Settings::default());
        let begun = cpu_nanos();
        for row in &rows {
            turn.fold(row, false).unwrap();
        }
        cpu_nanos() - begun
    });
    println!("| | ns per command |\n|---|---|");
    for (what, nanos) in [
        ("decode", decoding),
        ("machine's step alone", stepping),
        ("turn, decoded before", turning),
        ("fold", folding),
    ] {
        println!("| {what} | {nanos:.0} |");
    }
}
