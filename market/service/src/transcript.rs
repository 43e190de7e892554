//! Writes an exchange's transcript (DESIGN §5, rule 10) beside the hot path: reads the journal's rows at its own
//! pace, folds them, and appends one line of JSON per round to a file.
//!
//! The files are a function of the journal and the exchange's secret: lost ones are written again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use journal::{Journal, Row};
use market::Market;
use market::view::transcript::{Hash, Record, Secret, Transcript, origin};
use proto::StreamName;
use proto::envelope::EventBatch;
use proto::market::MarketEvent;
use proto::subject;
use runtime::bus::Bus;
use runtime::runner::{journal_stream, turn_row};
use runtime::shell::Stop;

use crate::asked::{Asked, QUERIED_AS, answer};

/// Pause between two looks at the journal.
const LOOK: Duration = Duration::from_secs(1);
/// Rows read at a time.
const ROWS_MAX: usize = 128;
/// Bytes read at a time.
const BYTES_MAX: usize = 8 << 20;
/// Bytes of a secret.
const SECRET_BYTES: usize = 32;

/// Writes one exchange's transcript.
pub struct Transcriber {
    journal: Journal,
    exchange: StreamName,
    folder: PathBuf,
    archive: Option<PathBuf>,
    secret: Secret,
    fold: Transcript,
    /// Up to which row of the journal the file goes.
    sequence: u64,
}

impl Transcriber {
    /// A transcriber that goes on where the files in `folder` end; `archive` is where old rows are. The secret is
    /// made at its first start and kept beside them, readable by its owner alone. Replicas of an exchange must be
    /// given one secret: what one commits to the others open.
    ///
    /// # Errors
    /// When a file cannot be read or made.
    pub fn new(
        journal: Journal,
        exchange: StreamName,
        folder: PathBuf,
        archive: Option<PathBuf>,
    ) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("folder {}", folder.display()))?;
        let secret = secret(&folder.join(format!("{exchange}.secret")))?;
        let mut transcriber = Self {
            journal,
            fold: Transcript::new(&exchange),
            exchange,
            folder,
            archive,
            secret,
            sequence: 0,
        };
        transcriber.go_on()?;
        Ok(transcriber)
    }

    /// Follows the journal until the stop, and answers what is asked about the transcript.
    ///
    /// # Errors
    /// When the journal or the file fails.
    pub async fn run(mut self, bus: Bus, stop: Stop) -> Result<()> {
        let asked = Asked { path: self.path(), secret: self.secret.clone() };
        let filter = subject::query(QUERIED_AS, &self.exchange, ">");
        let _serving = bus.serve(&filter, move |query| answer(asked.clone(), query)).await?;
        let follow = async {
            loop {
                if self.catch_up().await? == 0 {
                    tokio::time::sleep(LOOK).await;
                }
            }
        };
        tokio::select! {
            ended = follow => ended,
            () = stop.into_requested() => Ok(()),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(format!("{}.ndjson", self.exchange))
    }

    fn state_path(&self) -> PathBuf {
        self.folder.join(format!("{}.state", self.exchange))
    }

    /// Takes the saved state up if it fits the end of the file, and begins anew if it does not.
    fn go_on(&mut self) -> Result<()> {
        if let Some((sequence, length, fold)) = read_state(&self.state_path()) {
            let last = last_hash(&self.path(), length, &self.exchange)?;
            if last == fold.head() {
                (self.sequence, self.fold) = (sequence, fold);
                return Ok(());
            }
            tracing::warn!(exchange = %self.exchange, "the transcript does not end as its state says: it is written anew");
        }
        for path in [self.path(), self.state_path()] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("file {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes in the next rows; gives how many there were.
    async fn catch_up(&mut self) -> Result<usize> {
        let stream = journal_stream::<Market>(&self.exchange);
        let rows = match self.journal.load_from(&stream, self.sequence, ROWS_MAX, BYTES_MAX).await {
            Ok(rows) => rows,
            // Older rows have moved to the archive.
            Err(journal::JournalError::Gap { .. }) => self.archived(&stream).await?,
            Err(error) => return Err(error.into()),
        };
        let Some(last) = rows.last().map(|row| row.seq) else { return Ok(0) };
        let count = rows.len();
        let mut lines = Vec::new();
        for row in rows.into_iter().map(turn_row) {
            let batch: EventBatch<MarketEvent> = serde_json::from_slice(&row.events)
                .with_context(|| format!("row {} of {stream}", row.sequence))?;
            for event in batch.entries.iter().flat_map(|entry| &entry.events) {
                if let Some(record) = self.fold.apply(&self.secret, batch.at, batch.sequence, event) {
                    serde_json::to_writer(&mut lines, &record)?;
                    lines.push(b'\n');
                }
            }
        }
        self.sequence = last;
        self.write(&lines)?;
        Ok(count)
    }

    /// The next rows of the archive.
    async fn archived(&self, stream: &str) -> Result<Vec<Row>> {
        let Some(folder) = self.archive.clone() else {
            anyhow::bail!("the transcript of {} needs rows that are archived", self.exchange)
        };
        let (stream, after) = (stream.to_owned(), self.sequence);
        let read = move || -> Result<Vec<Row>, journal::JournalError> {
            journal::archived_rows(&folder, &stream, after)?.take(ROWS_MAX).collect()
        };
        let rows = tokio::task::spawn_blocking(read).await??;
        ensure!(
            !rows.is_empty(),
            "the transcript of {}: rows after {after} are neither kept nor archived",
            self.exchange
        );
        Ok(rows)
    }

    fn write(&self, lines: &[u8]) -> Result<()> {
        let written = || -> io::Result<()> {
            let mut file = OpenOptions::new().append(true).create(true).open(self.path())?;
            file.write_all(lines)?;
            file.sync_data()?;
            let mut state = self.sequence.to_le_bytes().to_vec();
            state.extend_from_slice(&file.metadata()?.len().to_le_bytes());
            state.extend_from_slice(&self.fold.snapshot());
            let beside = self.state_path().with_extension("state.new");
            fs::write(&beside, state)?;
            File::open(&beside)?.sync_data()?;
            fs::rename(beside, self.state_path())
        };
        written().with_context(|| format!("transcript of {} in {}", self.exchange, self.folder.display()))
    }
}

/// The last row taken in, how long the file was then, and the fold.
fn read_state(path: &Path) -> Option<(u64, u64, Transcript)> {
    let bytes = fs::read(path).ok()?;
    let (sequence, rest) = bytes.split_first_chunk::<8>()?;
    let (length, fold) = rest.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*sequence), u64::from_le_bytes(*length), Transcript::restore(fold)?))
}

/// The hash of a transcript's last record, once what was written after its state is cut off.
fn last_hash(path: &Path, length: u64, exchange: &StreamName) -> Result<Hash> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(origin(exchange)),
        Err(error) => return Err(error).with_context(|| format!("file {}", path.display())),
    };
    if file.metadata()?.len() > length {
        file.set_len(length).with_context(|| format!("file {}", path.display()))?;
    }
    let mut last = None;
    for line in BufReader::new(file).lines() {
        last = Some(line.with_context(|| format!("file {}", path.display()))?);
    }
    let record = last.map(|line| serde_json::from_str::<Record>(&line));
    Ok(record.and_then(Result::ok).map_or_else(|| origin(exchange), |record| record.hash()))
}

fn secret(path: &Path) -> Result<Secret> {
    let shown = || format!("file {}", path.display());
    if !path.exists() {
        let mut bytes = [0; SECRET_BYTES];
        io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut bytes).context("/dev/urandom")?;
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).with_context(shown)?;
        file.write_all(&bytes).with_context(shown)?;
        file.sync_all().with_context(shown)?;
    }
    let bytes = fs::read(path).with_context(shown)?;
    ensure!(bytes.len() == SECRET_BYTES, "{}: holds {} bytes, not {SECRET_BYTES}", shown(), bytes.len());
    let mut secret = [0; SECRET_BYTES];
    secret.copy_from_slice(&bytes);
    Ok(Secret::new(secret))
}
