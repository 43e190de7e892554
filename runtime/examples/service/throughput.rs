//! How many commands per second go through, sustained, beside what the broker and the journal allow alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use journal::Journal;
use proto::{Machine, subject};
use runtime::bus::Bus;
use runtime::runner::{journal_stream, turn_row};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::chain::{self, Clients, Weights};
use super::client::{ANSWER_WAIT, answers_from_now, nanos, principal, publish, quantile};
use super::cpu::Times;
use super::engine::{Workload, World};
use super::envelopes::{ENVELOPE_COMMANDS, Envelopes, numbers};
use super::floors;
use super::served::Served;

/// Envelopes on their way to the broker at once.
const ENVELOPES_IN_FLIGHT: usize = 4;
/// Envelopes whose commands are not all answered: so many bids wait at most, wherever they wait.
const ENVELOPES_UNANSWERED_MAX: usize = 48;
/// Single commands of the one-command-per-message measurement, and how many are on their way at once.
const SINGLES: u64 = 6_000;
const SINGLES_IN_FLIGHT: usize = 64;
/// Time for each floor, before and again after.
const FLOOR: Duration = Duration::from_secs(4);
/// Time for all of them together.
const CHAIN: Duration = Duration::from_secs(8);
/// Commands that are sent before anything is measured.
const WARM_UP: Duration = Duration::from_secs(2);

/// One run at full speed.
struct Run {
    commands: u64,
    taken: Duration,
    /// From sending an envelope to the answer to its last command, in nanoseconds.
    latencies: Vec<u64>,
}

impl Run {
    fn per_second(&self) -> f64 {
        self.commands as f64 / self.taken.as_secs_f64()
    }
}

/// Floors, the service for so many seconds, floors again, one command per message.
pub(crate) async fn measure<W: Workload>(world: &World, served: &Served, seconds: u32) -> Result<()> {
    let mut envelopes = Envelopes::from::<W>(0);
    let bytes = envelopes.bytes();
    flat_out(world, W::SUBJECT, &mut envelopes, |lasted, _| lasted < WARM_UP).await?;
    let reader = Journal::open(&world.journal_url("journal")).await?;
    let (input, events, commands) = full_row::<W>(&reader).await?;
    // Beside the service's database, so that neither weighs on the other's log.
    let alone = Journal::open(&world.journal_url("floor")).await?;
    let mut floors = Floors::default();
    floors.measure(world, &alone, (input, events), &mut envelopes).await?;

    let rows = head::<W>(&reader).await?;
    let told = Told::of::<W>(world).await?;
    let before = cpu(world, served);
    let lasting = Duration::from_secs(u64::from(seconds));
    let run = flat_out(world, W::SUBJECT, &mut envelopes, |lasted, _| lasted < lasting).await?;
    let after = cpu(world, served);
    let rows = head::<W>(&reader).await? - rows;
    let told = Told::of::<W>(world).await?.since(told, run.commands / ENVELOPE_COMMANDS);

    floors.measure(world, &alone, (input, events), &mut envelopes).await?;
    let weights = Weights { input, events, answers_told: told.answers, events_told: told.events };
    floors.chain = chain_rate(world, alone, weights, &mut envelopes).await?;
    let (first_single, _) = envelopes.next();
    let single = singly::<W>(world, first_single).await?;
    floors.singles(world, W::command).await?;

    println!(
        "{} commands in {:.1} s ({rows} rows), every one answered exactly once; envelopes of {ENVELOPE_COMMANDS} commands, {bytes} bytes; rows of {commands} commands, stored as {input} bytes of input and {events} of events",
        run.commands,
        run.taken.as_secs_f64()
    );
    report(&run, &floors, single, commands as f64);
    let mut latencies = run.latencies.clone();
    let (p50, p99) = (quantile(&mut latencies, 0.5), quantile(&mut latencies, 0.99));
    println!(
        "from sending an envelope to its last answer: p50 {p50:.1} ms, p99 {p99:.1} ms, at most {ENVELOPES_UNANSWERED_MAX} unanswered"
    );
    shares(&run, &before, &after);
    println!("resident memory of the service at the end: {} MiB", resident_mebibytes(served.pid()));
    Ok(())
}

/// Sends so many commands at least and waits for their answers; gives how many there were.
pub(crate) async fn fill<W: Workload>(world: &World, commands: u64) -> Result<u64> {
    let mut envelopes = Envelopes::from::<W>(0);
    let run = flat_out(world, W::SUBJECT, &mut envelopes, |_, sent| sent < commands).await?;
    Ok(run.commands)
}

/// Broker, journal and clients together, and nothing between them.
async fn chain_rate(
    world: &World,
    journal: Journal,
    weights: Weights,
    envelopes: &mut Envelopes,
) -> Result<f64> {
    let middle = world.connect("middle").await?;
    let clients = Clients {
        sender: &world.sender,
        receiver: &world.receiver,
        in_flight: ENVELOPES_IN_FLIGHT,
        unanswered_max: ENVELOPES_UNANSWERED_MAX,
    };
    chain::chain(clients, middle, journal, weights, CHAIN, || envelopes.next().1).await
}

/// Bytes that the broker keeps of what the service told.
#[derive(Clone, Copy)]
struct Told {
    answers: usize,
    events: usize,
}

impl Told {
    async fn of<W: Workload>(world: &World) -> Result<Self> {
        let events = subject::event_stream(W::Machine::NAME, &"main".parse()?);
        Ok(Self {
            answers: world.sender.stream_state("walras-answer").await?.bytes as usize,
            events: world.sender.stream_state(&events).await?.bytes as usize,
        })
    }

    /// What came since `before`, for each of so many envelopes. What the broker forgot meanwhile is missing.
    fn since(self, before: Self, envelopes: u64) -> Self {
        let each = |now: usize, before: usize| now.saturating_sub(before) / envelopes.max(1) as usize;
        Self { answers: each(self.answers, before.answers), events: each(self.events, before.events) }
    }
}

/// Rates of the floors, messages, rows or commands per second.
#[derive(Default)]
struct Floors {
    broker: Vec<f64>,
    journal: Vec<f64>,
    chain: f64,
    singles: f64,
}

impl Floors {
    async fn measure(
        &mut self,
        world: &World,
        journal: &Journal,
        (input, events): (usize, usize),
        envelopes: &mut Envelopes,
    ) -> Result<()> {
        let buses = (&world.sender, &world.receiver);
        self.broker
            .push(floors::broker(buses, "floor", ENVELOPES_IN_FLIGHT, FLOOR, || envelopes.next().1).await?);
        self.journal.push(floors::journal(journal, input, events, FLOOR).await?);
        Ok(())
    }

    async fn singles(&mut self, world: &World, command: fn(u64) -> String) -> Result<()> {
        let mut number = 0;
        let payload = || {
            number += 1;
            Bytes::from(command(number))
        };
        let buses = (&world.sender, &world.receiver);
        self.singles = floors::broker(buses, "single", SINGLES_IN_FLIGHT, FLOOR, payload).await?;
        Ok(())
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn report(run: &Run, floors: &Floors, single: f64, row_commands: f64) {
    let service = run.per_second();
    let broker = mean(&floors.broker) * ENVELOPE_COMMANDS as f64;
    let journal = mean(&floors.journal) * row_commands;
    for (what, rate) in [
        ("service, sent to answered", service),
        ("broker alone, publish and read", broker),
        ("journal alone, rows of that size", journal),
        ("lower floor", broker.min(journal)),
        ("broker, journal and clients together, nothing between", floors.chain * ENVELOPE_COMMANDS as f64),
        ("broker alone, one command a message", floors.singles),
        ("service, one command a message", single),
    ] {
        let line = json!({
            "what": what,
            "commands_per_second": rate.round(),
            "service_over_this": (service / rate * 100.0).round() / 100.0,
        });
        println!("{line}");
    }
}

/// CPU times of broker, service and clients.
type Cpu = [(&'static str, Times); 3];

fn cpu(world: &World, served: &Served) -> Cpu {
    [
        ("broker", Times::of(world.server.pid().unwrap_or_default())),
        ("service", Times::of(served.pid())),
        ("clients", Times::of(std::process::id())),
    ]
}

fn shares(run: &Run, before: &Cpu, after: &Cpu) {
    let seconds = run.taken.as_secs_f64();
    for ((name, before), (_, after)) in before.iter().zip(after) {
        let times = after.since(before);
        let per_command = |seconds: f64| seconds * 1e6 / run.commands as f64;
        let parts: Vec<String> =
            times.parts().map(|(name, part)| format!("{name} {:.2}", per_command(part))).collect();
        println!(
            "CPU of {name}: {:.2} cores, {:.2} microseconds per command ({})",
            times.total() / seconds,
            per_command(times.total()),
            parts.join(", ")
        );
    }
}

fn resident_mebibytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1_024
}

async fn head<W: Workload>(journal: &Journal) -> Result<u64> {
    let name = journal_stream::<W::Machine>(&"main".parse()?);
    Ok(journal.head(&name).await?.map_or(0, |head| head.seq))
}

/// Stored bytes of input and events of the largest of the newest rows, and how many commands it holds.
async fn full_row<W: Workload>(journal: &Journal) -> Result<(usize, usize, usize)> {
    let name = journal_stream::<W::Machine>(&"main".parse()?);
    let head = head::<W>(journal).await?;
    let rows = journal.load_from(&name, head.saturating_sub(40), 40, 64 << 20).await?;
    let largest = rows.into_iter().max_by_key(|row| row.input.len()).context("no rows")?;
    let (input, events) = (largest.input.len(), largest.events.len());
    Ok((input, events, numbers(&turn_row(largest).input).count()))
}

/// Sends envelopes while there are to be `more` (of so long and so many commands so far), never more at once than
/// the bounds allow, and waits until every command is answered.
async fn flat_out(
    world: &World,
    subject: &'static str,
    envelopes: &mut Envelopes,
    more: impl Fn(Duration, u64) -> bool,
) -> Result<Run> {
    let mut reader = answers_from_now(&world.receiver, principal(subject)).await?;
    let room = Arc::new(Semaphore::new(ENVELOPES_UNANSWERED_MAX));
    let (sent_out, sent) = mpsc::channel(ENVELOPES_UNANSWERED_MAX);
    let start = Instant::now();
    let answering = Answering { room: Arc::clone(&room), sent, open: Vec::new(), latencies: Vec::new() };
    let mut reading = tokio::spawn(async move { answering.run(&mut reader, start).await });
    let mut flying = JoinSet::new();
    let mut commands = 0;
    while more(start.elapsed(), commands) {
        while flying.len() >= ENVELOPES_IN_FLIGHT {
            flying.join_next().await.transpose()?.transpose()?;
        }
        tokio::select! {
            // Given back by who reads the last answer.
            permit = room.acquire() => permit?.forget(),
            // It ends only by an error before all is sent.
            ended = &mut reading => return Err(ended?.err().context("reading ended early")?),
        }
        let (first, payload) = envelopes.next();
        commands += ENVELOPE_COMMANDS;
        sent_out.send((first, nanos(start))).await?;
        let sender = world.sender.clone();
        flying.spawn(async move { publish(&sender, subject, &format!("t{first}"), payload).await });
    }
    drop(sent_out);
    while let Some(done) = flying.join_next().await {
        done??;
    }
    let (answered, latencies) = reading.await??;
    ensure!(answered == commands, "{answered} of {commands} answered");
    Ok(Run { commands, taken: start.elapsed(), latencies })
}

/// One envelope whose answers are awaited.
struct Open {
    first: u64,
    sent: u64,
    answered: Vec<bool>,
    missing: u64,
}

/// Counts every answer, each once.
struct Answering {
    room: Arc<Semaphore>,
    sent: mpsc::Receiver<(u64, u64)>,
    open: Vec<Open>,
    latencies: Vec<u64>,
}

impl Answering {
    async fn run(mut self, reader: &mut runtime::bus::Reader, start: Instant) -> Result<(u64, Vec<u64>)> {
        let mut answered = 0;
        while self.is_more_to_come().await {
            let batch = tokio::time::timeout(ANSWER_WAIT, reader.next_batch(64, 4 << 20)).await;
            for delivery in batch.with_context(|| format!("{answered} answered, then silence"))?? {
                for number in numbers(&delivery.payload) {
                    self.note(number, start)?;
                    answered += 1;
                }
            }
        }
        Ok((answered, self.latencies))
    }

    /// Whether an answer is awaited; waits for the next envelope if none is.
    async fn is_more_to_come(&mut self) -> bool {
        while let Ok(sent) = self.sent.try_recv() {
            self.open(sent);
        }
        if !self.open.is_empty() {
            return true;
        }
        match self.sent.recv().await {
            Some(sent) => {
                self.open(sent);
                true
            }
            None => false,
        }
    }

    fn open(&mut self, (first, sent): (u64, u64)) {
        let answered = vec![false; ENVELOPE_COMMANDS as usize];
        self.open.push(Open { first, sent, answered, missing: ENVELOPE_COMMANDS });
    }

    fn note(&mut self, number: u64, start: Instant) -> Result<()> {
        let of = |open: &Open| (open.first..open.first + ENVELOPE_COMMANDS).contains(&number);
        while !self.open.iter().any(of) {
            let sent = self.sent.try_recv().with_context(|| format!("c{number} is answered unasked"))?;
            self.open(sent);
        }
        let place = self.open.iter().position(of).context("it was just found")?;
        let open = &mut self.open[place];
        let answered = &mut open.answered[(number - open.first) as usize];
        ensure!(!*answered, "c{number} is answered twice");
        *answered = true;
        open.missing -= 1;
        if open.missing == 0 {
            self.latencies.push(nanos(start) - open.sent);
            self.open.remove(place);
            self.room.add_permits(1);
        }
        Ok(())
    }
}

/// Commands per second where each is a message of its own.
async fn singly<W: Workload>(world: &World, first: u64) -> Result<f64> {
    let mut reader = answers_from_now(&world.receiver, principal(W::SUBJECT)).await?;
    let start = Instant::now();
    let reading = tokio::spawn(async move {
        let mut answered = 0;
        while answered < SINGLES {
            let batch = tokio::time::timeout(ANSWER_WAIT, reader.next_batch(4_096, 8 << 20)).await;
            let batch = batch.with_context(|| format!("{answered} of {SINGLES} answered"))??;
            answered += batch.iter().map(|one| numbers(&one.payload).count() as u64).sum::<u64>();
        }
        anyhow::Ok(start.elapsed())
    });
    let mut flying = JoinSet::new();
    for number in first..first + SINGLES {
        while flying.len() >= SINGLES_IN_FLIGHT {
            flying.join_next().await.transpose()?.transpose()?;
        }
        let sender: Bus = world.sender.clone();
        let payload = Bytes::from(W::command(number));
        flying.spawn(async move { publish(&sender, W::SUBJECT, &format!("s{number}"), payload).await });
    }
    while let Some(done) = flying.join_next().await {
        done??;
    }
    Ok(SINGLES as f64 / reading.await??.as_secs_f64())
}
