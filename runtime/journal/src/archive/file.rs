//! One archive file. All numbers are little-endian.
//!
//! ```text
//! magic 8 | stream: u32 length, bytes | first u64 | last u64 | hash of the file before, or zeros: 32
//! rows, each: seq u64 | at_micros i64 | rules u32 | position_created i64 | position_sequence u64
//!             | published u64 | state_hash 16 | chain 32 | owner, input, events: u32 length, bytes
//! SHA-256 of everything above: 32
//! ```

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::JournalError;
use crate::limits::{NAME_BYTES_MAX, ROW_BYTES_MAX};
use crate::rows::{Row, Stored};

const MAGIC: &[u8; 8] = b"WALRASA1";
const HASH_BYTES: usize = 32;
const BUFFER_BYTES: usize = 1 << 20;

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) stream: String,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    /// The trailing hash of the file before; zeros in a stream's first file.
    pub(crate) previous: [u8; HASH_BYTES],
}

/// Files sort by name as their rows do.
pub(crate) fn name(first_seq: u64) -> String {
    format!("{first_seq:020}.rows")
}

/// The folder of a stream's files. Whatever a file system could take for something else is written as `%XX`.
pub(crate) fn folder(dir: &Path, stream: &str) -> PathBuf {
    let mut name = String::with_capacity(stream.len());
    for byte in stream.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            _ => name.extend(format!("%{byte:02X}").chars()),
        }
    }
    dir.join(name)
}

pub(crate) fn file_error(path: &Path, operation: &'static str, source: io::Error) -> JournalError {
    JournalError::File { path: path.to_owned(), operation, source }
}

pub(crate) fn wrong(path: &Path, what: impl Into<String>) -> JournalError {
    JournalError::Archive { path: path.to_owned(), what: what.into() }
}

/// Writes a file under a temporary name; [`Writer::finish`] makes it durable and gives it its own.
pub(crate) struct Writer {
    partial: PathBuf,
    path: PathBuf,
    file: BufWriter<File>,
    hasher: Sha256,
    next_seq: u64,
    last_seq: u64,
    scratch: Vec<u8>,
}

impl Writer {
    pub(crate) fn create(folder: &Path, header: &Header) -> Result<Self, JournalError> {
        let path = folder.join(name(header.first_seq));
        let partial = path.with_extension("partial");
        let file = File::create(&partial).map_err(|error| file_error(&partial, "create", error))?;
        let mut writer = Self {
            partial,
            path,
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            hasher: Sha256::new(),
            next_seq: header.first_seq,
            last_seq: header.last_seq,
            scratch: Vec::new(),
        };
        writer.scratch.extend_from_slice(MAGIC);
        put_bytes(&mut writer.scratch, header.stream.as_bytes());
        writer.scratch.extend_from_slice(&header.first_seq.to_le_bytes());
        writer.scratch.extend_from_slice(&header.last_seq.to_le_bytes());
        writer.scratch.extend_from_slice(&header.previous);
        writer.flush_scratch()?;
        Ok(writer)
    }

    pub(crate) fn append(&mut self, stored: &Stored) -> Result<(), JournalError> {
        let row = &stored.row;
        if row.seq != self.next_seq || row.seq > self.last_seq {
            let what =
                format!("row {} cannot follow, {} is next of {}", row.seq, self.next_seq, self.last_seq);
            return Err(wrong(&self.partial, what));
        }
        self.next_seq += 1;
        let out = &mut self.scratch;
        out.extend_from_slice(&row.seq.to_le_bytes());
        out.extend_from_slice(&row.at_micros.to_le_bytes());
        out.extend_from_slice(&row.rules.to_le_bytes());
        out.extend_from_slice(&row.position_created.to_le_bytes());
        out.extend_from_slice(&row.position_sequence.to_le_bytes());
        out.extend_from_slice(&row.published.to_le_bytes());
        out.extend_from_slice(&row.state_hash);
        out.extend_from_slice(&row.chain);
        put_bytes(out, stored.owner.as_bytes());
        put_bytes(out, &row.input);
        put_bytes(out, &row.events);
        self.flush_scratch()
    }

    /// Makes the file durable, then visible. Returns its path and its trailing hash.
    pub(crate) fn finish(mut self) -> Result<(PathBuf, [u8; HASH_BYTES]), JournalError> {
        if self.next_seq != self.last_seq + 1 {
            return Err(wrong(&self.partial, format!("ends before row {}", self.last_seq)));
        }
        let hash: [u8; HASH_BYTES] = self.hasher.finalize().into();
        let partial = &self.partial;
        self.file.write_all(&hash).map_err(|error| file_error(partial, "write", error))?;
        let file =
            self.file.into_inner().map_err(|error| file_error(partial, "write", error.into_error()))?;
        file.sync_all().map_err(|error| file_error(partial, "sync", error))?;
        fs::rename(partial, &self.path).map_err(|error| file_error(partial, "rename", error))?;
        sync_folder(self.path.parent().unwrap_or(Path::new(".")))?;
        Ok((self.path, hash))
    }

    fn flush_scratch(&mut self) -> Result<(), JournalError> {
        self.hasher.update(&self.scratch);
        let written = self.file.write_all(&self.scratch);
        self.scratch.clear();
        written.map_err(|error| file_error(&self.partial, "write", error))
    }
}

/// A new name is durable only when its folder is.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), JournalError> {
    File::open(folder).and_then(|opened| opened.sync_all()).map_err(|error| file_error(folder, "sync", error))
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // Names and rows are bounded far below 4 GiB before they are stored.
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Reads a file whose hash was found right.
pub(crate) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    next_seq: u64,
    pub(crate) header: Header,
    pub(crate) hash: [u8; HASH_BYTES],
}

impl Reader {
    /// Reads the whole file once to check its hash, so that no row of a damaged file is ever handed out.
    pub(crate) fn open(path: &Path) -> Result<Self, JournalError> {
        let failed = |error| file_error(path, "read", error);
        let mut file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        let Some(hashed) = bytes.checked_sub(HASH_BYTES as u64) else {
            return Err(wrong(path, "is too short to be an archive"));
        };
        let hash = hash_of(&mut file, hashed).map_err(failed)?;
        let mut stored = [0; HASH_BYTES];
        file.read_exact(&mut stored).map_err(failed)?;
        if hash != stored {
            return Err(wrong(path, "its hash does not match its contents"));
        }
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        let header = read_header(&mut file, path)?;
        Ok(Self { path: path.to_owned(), file, next_seq: header.first_seq, header, hash })
    }

    /// The next row, or `None` after the last.
    pub(crate) fn next_row(&mut self) -> Result<Option<Stored>, JournalError> {
        if self.next_seq > self.header.last_seq {
            return Ok(None);
        }
        let stored = read_row(&mut self.file, &self.path)?;
        if stored.row.seq != self.next_seq {
            let what = format!("row {} stands where row {} belongs", stored.row.seq, self.next_seq);
            return Err(wrong(&self.path, what));
        }
        self.next_seq += 1;
        Ok(Some(stored))
    }
}

fn hash_of(file: &mut File, bytes: u64) -> io::Result<[u8; HASH_BYTES]> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut left = bytes;
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
        let piece = buffer.get_mut(..wanted).unwrap_or_default();
        file.read_exact(piece)?;
        hasher.update(piece);
        left -= wanted as u64;
    }
    Ok(hasher.finalize().into())
}

fn read_header(file: &mut impl Read, path: &Path) -> Result<Header, JournalError> {
    let mut magic = [0; 8];
    read_exact(file, path, &mut magic)?;
    if magic != *MAGIC {
        return Err(wrong(path, "is not an archive of this version"));
    }
    Ok(Header {
        stream: read_text(file, path, "stream")?,
        first_seq: u64::from_le_bytes(read_array(file, path)?),
        last_seq: u64::from_le_bytes(read_array(file, path)?),
        previous: read_array(file, path)?,
    })
}

fn read_row(file: &mut impl Read, path: &Path) -> Result<Stored, JournalError> {
    let seq = u64::from_le_bytes(read_array(file, path)?);
    let at_micros = i64::from_le_bytes(read_array(file, path)?);
    let rules = u32::from_le_bytes(read_array(file, path)?);
    let position_created = i64::from_le_bytes(read_array(file, path)?);
    let position_sequence = u64::from_le_bytes(read_array(file, path)?);
    let published = u64::from_le_bytes(read_array(file, path)?);
    let state_hash = read_array(file, path)?;
    let chain = read_array(file, path)?;
    let owner = read_text(file, path, "owner")?;
    let input = read_bytes(file, path, "input", ROW_BYTES_MAX)?;
    let events = read_bytes(file, path, "events", ROW_BYTES_MAX)?;
    let row = Row {
        seq,
        at_micros,
        rules,
        position_created,
        position_sequence,
        published,
        state_hash,
        chain,
        input,
        events,
    };
    Ok(Stored { row, owner })
}

fn read_exact(file: &mut impl Read, path: &Path, out: &mut [u8]) -> Result<(), JournalError> {
    file.read_exact(out).map_err(|error| file_error(path, "read", error))
}

fn read_array<const N: usize>(file: &mut impl Read, path: &Path) -> Result<[u8; N], JournalError> {
    let mut out = [0; N];
    read_exact(file, path, &mut out)?;
    Ok(out)
}

fn read_bytes(
    file: &mut impl Read,
    path: &Path,
    field: &'static str,
    max: usize,
) -> Result<Vec<u8>, JournalError> {
    let length = u32::from_le_bytes(read_array(file, path)?) as usize;
    if length > max {
        return Err(wrong(path, format!("{field} has {length} bytes, at most {max} are possible")));
    }
    let mut out = vec![0; length];
    read_exact(file, path, &mut out)?;
    Ok(out)
}

fn read_text(file: &mut impl Read, path: &Path, field: &'static str) -> Result<String, JournalError> {
    let bytes = read_bytes(file, path, field, NAME_BYTES_MAX)?;
    String::from_utf8(bytes).map_err(|_| wrong(path, format!("{field} is not text")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_plain_name() {
        let dir = Path::new("a");
        assert_eq!(folder(dir, "market/dfw-1_b"), dir.join("market%2Fdfw-1_b"));
        assert_eq!(folder(dir, ".."), dir.join("%2E%2E"));
        assert_ne!(folder(dir, "A"), folder(dir, "a"));
        let longest = "/".repeat(NAME_BYTES_MAX);
        assert!(folder(Path::new(""), &longest).as_os_str().len() <= 255);
    }
}
