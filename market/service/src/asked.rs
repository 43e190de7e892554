//! What can be asked about an exchange's transcript: its records, which are public, and the salts of one bid, which
//! are for its tenant; the gateway asks for whom it knows.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use market::view::transcript::{Acts, Secret};
use proto::market::RoundNumber;
use runtime::bus::Query;
use serde::Deserialize;

/// The machine under whose name questions about transcripts go.
pub const QUERIED_AS: &str = runtime::nats::layout::TRANSCRIPTS;
/// Most records of one answer.
pub const RECORDS_MAX: usize = 1_000;
/// An answer ends early at so many bytes.
const RECORDS_BYTES_MAX: u64 = 8 << 20;
/// Halvings of a file until one record is left: no file has more bytes than an offset can say.
const HALVINGS_MAX: u32 = 64;

/// What answers are made from.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) path: PathBuf,
    pub(crate) secret: Secret,
}

/// Which records are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordsQuestion {
    /// Those of the rounds behind this one.
    after: RoundNumber,
    limit: usize,
}

/// Questions: `records` (whole lines of the transcript, as they stand and are hashed) and `salts`.
pub(crate) async fn answer(asked: Asked, query: Query) -> Result<Bytes, String> {
    let read = move || match query.subject.rsplit('.').next().unwrap_or_default() {
        "records" => {
            let question: RecordsQuestion = read(&query.payload)?;
            let limit = question.limit.clamp(1, RECORDS_MAX);
            records(&asked.path, question.after, limit).map(Bytes::from).map_err(|error| error.to_string())
        }
        "salts" => {
            let acts: Acts = read(&query.payload)?;
            serde_json::to_vec(&asked.secret.salts(&acts)).map(Bytes::from).map_err(|error| error.to_string())
        }
        other => Err(format!("question {other} is unknown: records and salts are answered")),
    };
    tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?
}

fn read<'de, T: Deserialize<'de>>(payload: &'de [u8]) -> Result<T, String> {
    serde_json::from_slice(payload).map_err(|error| error.to_string())
}

/// Lines of the rounds behind `after`, whole ones only: the writer may be in the middle of the last.
fn records(path: &Path, after: RoundNumber, limit: usize) -> io::Result<Vec<u8>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let length = file.metadata()?.len();
    let mut file = BufReader::new(file);
    // The first line behind `after` begins at or behind `low`, and before or at the line that begins behind `high`.
    let (mut low, mut high) = (0, length);
    for _ in 0..HALVINGS_MAX {
        if low >= high {
            break;
        }
        let middle = u64::midpoint(low, high);
        match line_behind(&mut file, middle)? {
            Some((end, round)) if round <= after => low = end,
            _ => high = middle,
        }
    }
    seek_line(&mut file, low)?;
    let (mut lines, mut count) = (Vec::new(), 0);
    let mut rest = file.take(RECORDS_BYTES_MAX);
    while count < limit {
        let before = lines.len();
        rest.read_until(b'\n', &mut lines)?;
        if lines.last() != Some(&b'\n') || lines.len() == before {
            lines.truncate(before);
            break;
        }
        count += 1;
    }
    Ok(lines)
}

/// Goes to the first line that begins at or behind `offset`; gives where that is.
fn seek_line(file: &mut BufReader<File>, offset: u64) -> io::Result<u64> {
    let Some(before) = offset.checked_sub(1) else {
        file.rewind()?;
        return Ok(0);
    };
    // A line begins behind the end of another: where `offset` is the beginning of one, the byte before ends one.
    file.seek(SeekFrom::Start(before))?;
    Ok(before + file.skip_until(b'\n')? as u64)
}

/// Where the first line that begins at or behind `offset` ends, and which round it is of; `None` without a whole one.
fn line_behind(file: &mut BufReader<File>, offset: u64) -> io::Result<Option<(u64, RoundNumber)>> {
    #[derive(Deserialize)]
    struct Numbered {
        round: RoundNumber,
    }
    let start = seek_line(file, offset)?;
    let mut line = Vec::new();
    file.read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        return Ok(None);
    }
    let numbered: Numbered = serde_json::from_slice(&line)?;
    Ok(Some((start + line.len() as u64, numbered.round)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn records_are_found_behind_any_round() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("main.ndjson");
        assert_eq!(records(&path, 0, 10).unwrap(), b"");
        let line = |round: u64| {
            format!("{{\"round\":{round},\"padding\":\"{}\"}}\n", "x".repeat((round % 7) as usize))
        };
        // A half line stands at the end: it is not there yet.
        let text: String = (5..60).map(line).collect::<String>() + "{\"round\":6";
        std::fs::write(&path, text).unwrap();
        for after in 0..70 {
            let expected: String = (5..60).filter(|round| *round > after).take(3).map(line).collect();
            assert_eq!(
                String::from_utf8(records(&path, after, 3).unwrap()).unwrap(),
                expected,
                "after {after}"
            );
        }
        assert_eq!(String::from_utf8(records(&path, 0, RECORDS_MAX).unwrap()).unwrap().lines().count(), 55);
    }
}
