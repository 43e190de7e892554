//! The transcript's part of an audit: the records that the journal's events make are those that stand in the file.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Take};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use market::view::transcript::{Record, Secret, Transcript};
use proto::StreamName;
use proto::envelope::EventBatch;
use proto::market::MarketEvent;

/// Compares a transcript with the rows that it was made from.
pub(super) struct Comparison {
    path: PathBuf,
    /// As much of the file as stood there at first: what a running market adds is of rows read by nobody yet.
    file: BufReader<Take<File>>,
    secret: Secret,
    fold: Transcript,
    alike: u64,
    /// The file's lines have ended: what the rows say behind that was not written yet.
    is_over: bool,
}

impl Comparison {
    /// Takes up the transcript of an exchange; `None` where none is kept in this folder.
    pub(super) fn of(folder: &Path, exchange: &StreamName) -> Result<Option<Self>> {
        let path = folder.join(format!("{exchange}.ndjson"));
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.with_context(|| format!("file {}", path.display()))?,
        };
        let length = file.metadata().with_context(|| format!("file {}", path.display()))?.len();
        let file = BufReader::new(file.take(length));
        let secret = folder.join(format!("{exchange}.secret"));
        let bytes = fs::read(&secret).with_context(|| format!("file {}", secret.display()))?;
        let Ok(bytes) = bytes.try_into() else { bail!("file {}: is no secret", secret.display()) };
        let (secret, fold) = (Secret::new(bytes), Transcript::new(exchange));
        Ok(Some(Self { path, file, secret, fold, alike: 0, is_over: false }))
    }

    /// Compares the records that one row's events make.
    pub(super) fn row(&mut self, sequence: u64, events: &[u8]) -> Result<()> {
        let batch: EventBatch<MarketEvent> =
            serde_json::from_slice(events).with_context(|| format!("row {sequence}"))?;
        for event in batch.entries.iter().flat_map(|entry| &entry.events) {
            if let Some(record) = self.fold.apply(&self.secret, batch.at, batch.sequence, event) {
                self.compare(&record)?;
            }
        }
        Ok(())
    }

    fn compare(&mut self, record: &Record) -> Result<()> {
        let shown = |path: &Path| format!("file {}", path.display());
        let mut line = Vec::new();
        self.file.read_until(b'\n', &mut line).with_context(|| shown(&self.path))?;
        self.is_over |= line.last() != Some(&b'\n');
        if self.is_over {
            return Ok(());
        }
        line.pop();
        let same = serde_json::to_vec(record)? == line;
        ensure!(
            same,
            "{}: the record of round {} is not what the journal says",
            shown(&self.path),
            record.round
        );
        self.alike += 1;
        Ok(())
    }

    /// How many records were alike.
    ///
    /// # Errors
    /// When the file holds records that no row made.
    pub(super) fn end(mut self) -> Result<u64> {
        let mut rest = Vec::new();
        let shown = || format!("file {}", self.path.display());
        self.file.read_until(b'\n', &mut rest).with_context(shown)?;
        ensure!(
            self.is_over || rest.last() != Some(&b'\n'),
            "{}: holds records behind the journal's last round",
            shown()
        );
        Ok(self.alike)
    }
}

#[cfg(test)]
mod tests {
    use proto::Timestamp;
    use proto::envelope::EventEntry;

    use super::*;

    fn exchange() -> StreamName {
        "main".parse().unwrap()
    }

    fn row(sequence: u64) -> Vec<u8> {
        let entries = vec![EventEntry {
            key: None,
            digest: None,
            events: vec![MarketEvent::RoundClosed { round: sequence }],
        }];
        let machine = "market".to_owned();
        let at = Timestamp::from_micros(sequence as i64);
        serde_json::to_vec(&EventBatch { machine, stream: exchange(), sequence, at, rules: 1, entries })
            .unwrap()
    }

    fn written(folder: &Path, rounds: u64) -> String {
        let (secret, mut fold) = (Secret::new([7; 32]), Transcript::new(&exchange()));
        let mut lines = String::new();
        for sequence in 1..=rounds {
            let round = MarketEvent::RoundClosed { round: sequence };
            let record =
                fold.apply(&secret, Timestamp::from_micros(sequence as i64), sequence, &round).unwrap();
            lines += &(serde_json::to_string(&record).unwrap() + "\n");
        }
        fs::write(folder.join("main.secret"), [7; 32]).unwrap();
        fs::write(folder.join("main.ndjson"), &lines).unwrap();
        lines
    }

    fn compared(folder: &Path, rows: u64) -> Result<u64> {
        let mut comparison = Comparison::of(folder, &exchange())?.unwrap();
        (1..=rows).try_for_each(|sequence| comparison.row(sequence, &row(sequence)))?;
        comparison.end()
    }

    #[test]
    fn a_transcript_must_be_what_the_journal_says_as_far_as_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Comparison::of(folder.path(), &exchange()).unwrap().is_none());
        let lines = written(folder.path(), 3);
        assert_eq!(compared(folder.path(), 3).unwrap(), 3);
        assert_eq!(compared(folder.path(), 5).unwrap(), 3, "what is not written yet is no difference");
        let error = compared(folder.path(), 2).unwrap_err().to_string();
        assert!(error.contains("behind the journal"), "{error}");
        fs::write(folder.path().join("main.ndjson"), lines.replacen("\"round\":2", "\"round\":7", 1))
            .unwrap();
        let error = compared(folder.path(), 3).unwrap_err().to_string();
        assert!(error.contains("round 2"), "{error}");
        fs::write(folder.path().join("main.ndjson"), &lines[..lines.len() - 5]).unwrap();
        assert_eq!(compared(folder.path(), 3).unwrap(), 2, "a line half written is none");
    }
}
