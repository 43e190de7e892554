//! Under which name this process claims streams.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::{Context, Result};
use journal::Owner;

/// The file in the data folder that holds the name.
const FILE: &str = "owner";
/// More than any name has, in bytes.
const NAME_BYTES_MAX: u64 = 128;

/// The name of whoever works in the data folder, the same from start to start: one that was killed is followed at
/// once, because the claim it left behind is its successor's. The file is locked until this process ends, however it
/// ends; so of two processes in one folder the second goes by `unique`, a name of its own, and waits for the claim.
/// Were a lock ever not kept, as on some network file systems, the journal's fence would still let only one write.
///
/// # Errors
/// When the file cannot be read or written.
pub(super) fn owner(data_dir: &Path, unique: &str) -> Result<Owner> {
    let path = data_dir.join(FILE);
    let (name, locked) = name(&path, unique).with_context(|| path.display().to_string())?;
    // Until the process ends, not until some value is dropped.
    std::mem::forget(locked);
    Ok(Owner::new(name)?)
}

/// The name, and the locked file it is from.
fn name(path: &Path, unique: &str) -> Result<(String, Option<File>)> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok((unique.to_owned(), None)),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    let mut name = String::new();
    // What is not text is no name either.
    let is_read = std::io::Read::by_ref(&mut file).take(NAME_BYTES_MAX).read_to_string(&mut name).is_ok();
    if is_read && Owner::new(name.as_str()).is_ok() {
        return Ok((name, Some(file)));
    }
    file.set_len(0)?;
    std::io::Seek::rewind(&mut file)?;
    file.write_all(unique.as_bytes())?;
    file.sync_all()?;
    Ok((unique.to_owned(), Some(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_goes_to_who_comes_next_and_never_to_two_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let (first, locked) = name(&path, "a-1").unwrap();
        assert_eq!((first.as_str(), locked.is_some()), ("a-1", true));
        let (beside, not_locked) = name(&path, "b-2").unwrap();
        assert_eq!((beside.as_str(), not_locked.is_none()), ("b-2", true));
        drop(locked);
        assert_eq!(name(&path, "c-3").unwrap().0, "a-1");
        // Cut by a crash, or not ours: made anew.
        for damaged in ["", "two words\n", "\u{fc}"] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(name(&path, "d-4").unwrap().0, "d-4", "{damaged:?}");
        }
    }
}
