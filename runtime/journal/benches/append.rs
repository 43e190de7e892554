//! How fast rows become durable, against what the disk allows.
//!
//! The floor is a plain file in the same folder: the same bytes, one `write` and one `fdatasync` each, over space
//! that was written before, as in a log that is used again and again (a growing file is several times slower).
//! Floor and journal take turns in short blocks, because a shared disk changes its mind within seconds.
//!
//! `cargo bench -p journal` runs all; `-- sqlite` or `-- postgres` one database; `WALRAS_BENCH_SECONDS` sets the
//! time per line (default 2).

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use journal::testing::Postgres;
use journal::{Answer, Appended, Journal, Owner, Row, Snapshot};

/// Blocks that floor and journal take in turn.
const BLOCKS: u32 = 8;

/// Bytes of a row, and rows of one append.
const CASES: [(usize, usize); 5] = [(300, 1), (20 << 10, 1), (400 << 10, 1), (300, 64), (400 << 10, 4)];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let wanted = std::env::args().nth(1).filter(|word| !word.starts_with('-'));
    let is_wanted = |name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // Beside the build output and not in the system's folder for temporary files, which may be in memory.
    let folder = tempfile::tempdir_in(std::env::var("CARGO_TARGET_TMPDIR").unwrap_or_else(|_| ".".into()))?;
    if is_wanted("sqlite") {
        let url = format!("sqlite:{}", folder.path().join("journal.db").display());
        runtime.block_on(measure("sqlite", &url, folder.path()))?;
    }
    if is_wanted("postgres")
        && let Some(server) = Postgres::shared()
    {
        runtime.block_on(measure("postgres", &server.database(), folder.path()))?;
    }
    Ok(())
}

async fn measure(name: &str, url: &str, folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let seconds: u64 =
        std::env::var("WALRAS_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let block = Duration::from_secs(seconds) / BLOCKS;
    let journal = Journal::open(url).await?;
    println!(
        "{name}: rows of bytes | appends/s p50 µs p99 µs max µs MB/s | floor: writes/s p50 µs p99 µs MB/s | share of floor | CPU µs of ours, of the floor"
    );
    for (number, (bytes, rows)) in CASES.into_iter().enumerate() {
        let mut floor = Floor::create(&folder.join("floor"), bytes * rows)?;
        let mut appender = Appender::new(&journal, &format!("stream-{number}"), bytes, rows);
        for _ in 0..BLOCKS {
            floor.run(block)?;
            appender.run(block).await?;
        }
        let (ours, least) = (figures(&mut appender.took), figures(&mut floor.took));
        let megabytes = |rate: f64| rate * (bytes * rows) as f64 / 1e6;
        println!(
            "{rows:>4} × {bytes:>6} | {:>6.0} {:>6} {:>6} {:>6} {:>6.1} | {:>6.0} {:>6} {:>6} {:>6.1} | {:.2} | {} {}",
            ours.rate,
            ours.p50,
            ours.p99,
            ours.max,
            megabytes(ours.rate),
            least.rate,
            least.p50,
            least.p99,
            megabytes(least.rate),
            ours.rate / least.rate,
            appender.cpu_micros / appender.took.len() as u64,
            floor.cpu_micros / floor.took.len() as u64,
        );
    }
    others(&journal).await
}

/// Reading, snapshots and the index of answers: one line each.
async fn others(journal: &Journal) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let (mut after, mut bytes) = (0, 0);
    loop {
        let rows = journal.load_from("stream-2", after, 1_024, 8 << 20).await?;
        let Some(last) = rows.last() else { break };
        after = last.seq;
        bytes += rows.iter().map(|row| row.input.len() + row.events.len()).sum::<usize>();
    }
    println!("load {after} rows of 400 KiB: {:.0} MB/s", bytes as f64 / 1e6 / start.elapsed().as_secs_f64());

    let body = vec![7; 64 << 20];
    let start = Instant::now();
    journal.save_snapshot("stream-0", &Snapshot { seq: 1, version: 1, body }).await?;
    let saved = start.elapsed();
    let start = Instant::now();
    let found = journal.load_snapshot("stream-0", 1).await?;
    println!(
        "snapshot of 64 MiB: saved in {saved:.0?}, loaded in {:.0?} (found: {})",
        start.elapsed(),
        found.snapshot.is_some()
    );

    let answers: Vec<Answer> = (0..100_000_u64).map(answer).collect();
    let start = Instant::now();
    journal.index_answers("stream-0", &answers, 1).await?;
    println!("index of answers: {:.0}/s", answers.len() as f64 / start.elapsed().as_secs_f64());
    let keys: Vec<_> = answers.iter().step_by(97).map(|answer| answer.key).collect();
    let start = Instant::now();
    let found = journal.find_answers("stream-0", &keys).await?;
    println!(
        "look-up of answers: {:.0}/s ({} found)",
        keys.len() as f64 / start.elapsed().as_secs_f64(),
        found.len()
    );
    Ok(())
}

/// Keys as even as those of a hash.
fn answer(number: u64) -> Answer {
    let mixed = u128::from(number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    Answer { key: mixed.to_le_bytes(), seq: number, index: 0, digest: number }
}

/// Bytes of the floor's file, which is written over from the beginning when they are used up.
const FLOOR_BYTES: usize = 64 << 20;

struct Floor {
    file: File,
    place: usize,
    bytes: Vec<u8>,
    took: Vec<u128>,
    cpu_micros: u64,
}

impl Floor {
    fn create(path: &Path, bytes: usize) -> std::io::Result<Self> {
        let mut file = File::create(path)?;
        for _ in 0..FLOOR_BYTES >> 20 {
            file.write_all(&vec![0; 1 << 20])?;
        }
        file.sync_all()?;
        Ok(Self { file, place: FLOOR_BYTES, bytes: noise(bytes), took: Vec::new(), cpu_micros: 0 })
    }

    fn run(&mut self, block: Duration) -> std::io::Result<()> {
        let (end, before) = (Instant::now() + block, cpu_micros());
        while Instant::now() < end {
            let start = Instant::now();
            if self.place + self.bytes.len() > FLOOR_BYTES {
                self.file.seek(SeekFrom::Start(0))?;
                self.place = 0;
            }
            self.file.write_all(&self.bytes)?;
            self.file.sync_data()?;
            self.place += self.bytes.len();
            self.took.push(start.elapsed().as_nanos());
        }
        self.cpu_micros += cpu_micros() - before;
        Ok(())
    }
}

struct Appender<'a> {
    journal: &'a Journal,
    stream: String,
    owner: Owner,
    rows: Vec<Row>,
    took: Vec<u128>,
    cpu_micros: u64,
}

impl<'a> Appender<'a> {
    fn new(journal: &'a Journal, stream: &str, bytes: usize, rows: usize) -> Self {
        let body = noise(bytes);
        let (input, events) = body.split_at(bytes / 4);
        let row = |seq| Row {
            seq,
            at_micros: 1_700_000_000_000_000,
            rules: 1,
            position_created: 1_700_000_000_000_000,
            position_sequence: seq,
            published: seq - 1,
            state_hash: [1; 16],
            chain: [2; 32],
            input: input.to_vec(),
            events: events.to_vec(),
        };
        let rows = (1..=rows as u64).map(row).collect();
        let owner = Owner::new("bench").unwrap_or_else(|error| panic!("{error}"));
        Self { journal, stream: stream.to_owned(), owner, rows, took: Vec::new(), cpu_micros: 0 }
    }

    async fn run(&mut self, block: Duration) -> Result<(), Box<dyn std::error::Error>> {
        let (end, before) = (Instant::now() + block, cpu_micros());
        while Instant::now() < end {
            let start = Instant::now();
            let appended = self.journal.append(&self.stream, &self.owner, &self.rows).await?;
            self.took.push(start.elapsed().as_nanos());
            assert_eq!(appended, Appended::Committed);
            let count = self.rows.len() as u64;
            for row in &mut self.rows {
                row.seq += count;
            }
        }
        self.cpu_micros += cpu_micros() - before;
        Ok(())
    }
}

struct Figures {
    rate: f64,
    p50: u128,
    p99: u128,
    max: u128,
}

fn figures(took: &mut [u128]) -> Figures {
    took.sort_unstable();
    let at = |permille: usize| took[(took.len() - 1) * permille / 1_000] / 1_000;
    let total: u128 = took.iter().sum();
    Figures { rate: took.len() as f64 * 1e9 / total as f64, p50: at(500), p99: at(990), max: at(1_000) }
}

/// Processor time of this process, user and system, in microseconds. In steps of 10 ms, so only sums mean something.
fn cpu_micros() -> u64 {
    const TICK_MICROS: u64 = 10_000;
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * TICK_MICROS
}

/// Bytes that do not compress, the same in every run.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..bytes).map(|_| next()).collect()
}
