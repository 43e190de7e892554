//! Under which name this process claims streams, and whose claims it inherits.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use anyhow::{Context, Result};
use journal::{Journal, Owner};

/// The file in the data folder that holds the name of whoever works in it, or did last.
const FILE: &str = "owner";
/// More than any name has, in bytes.
const NAME_BYTES_MAX: u64 = 128;

/// Takes `unique` as the name of this run. The data folder remembers who worked in it last; as that process is gone
/// (the file is locked until its process ends, however it ends), its claims are given up in its name, so that one that
/// was killed is followed at once, and with a newer generation. Of two processes in one folder the second inherits
/// nothing and waits until the claim runs out. Were a lock ever not kept, as on some network file systems, the
/// journal's fence would still let only one write.
///
/// # Errors
/// When the file cannot be read or written, or the journal does not answer.
pub(super) async fn owner(data_dir: &Path, unique: &str, journal: &Journal) -> Result<Owner> {
    let owner = Owner::new(unique)?;
    let path = data_dir.join(FILE);
    let Some(mut file) = locked(&path).with_context(|| path.display().to_string())? else {
        return Ok(owner);
    };
    if let Some(last) = last(&mut file) {
        journal.release_all(&last).await?;
    }
    // Only now: a process that dies before leaves its predecessor's name to the next.
    sign(&mut file, &owner).with_context(|| path.display().to_string())?;
    // Locked until the process ends, not until some value is dropped.
    std::mem::forget(file);
    Ok(owner)
}

/// The file, locked; `None` while another process has it.
fn locked(path: &Path) -> Result<Option<File>> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Who worked here last. What a crash cut off, or is not ours, names nobody.
fn last(file: &mut File) -> Option<Owner> {
    let mut name = String::new();
    file.take(NAME_BYTES_MAX).read_to_string(&mut name).ok()?;
    Owner::new(name).ok()
}

fn sign(file: &mut File, owner: &Owner) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(owner.as_str().as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MICROS: i64 = 60_000_000;

    #[tokio::test]
    async fn the_next_process_inherits_the_stream_at_once_and_one_beside_it_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("journal.db").display());
        let journal = Journal::open(&url).await.unwrap();
        let first = owner(dir.path(), "first-1", &journal).await.unwrap();
        assert_eq!(first.as_str(), "first-1");
        assert_eq!(journal.claim("s", &first, 1, MINUTE_MICROS).await.unwrap().generation, 1);
        // Beside it: the file is locked.
        let beside = owner(dir.path(), "beside-2", &journal).await.unwrap();
        assert!(journal.claim("s", &beside, 2, MINUTE_MICROS).await.unwrap().is_held_by(&first));
        // A folder whose process is gone: the same name in it, and nobody who holds the lock.
        for (name, generation) in [("next-3", 2), ("last-4", 3)] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::copy(dir.path().join(FILE), folder.path().join(FILE)).unwrap();
            let next = owner(folder.path(), name, &journal).await.unwrap();
            let claim = journal.claim("s", &next, 3, MINUTE_MICROS).await.unwrap();
            assert!(claim.is_held_by(&next), "{name} waits for {}", claim.owner);
            assert_eq!(claim.generation, generation);
            std::fs::copy(folder.path().join(FILE), dir.path().join(FILE)).unwrap();
        }
    }

    #[test]
    fn what_is_no_name_names_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        for damaged in ["", "two words\n", "\u{fc}"] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(last(&mut locked(&path).unwrap().unwrap()), None, "{damaged:?}");
        }
        std::fs::write(&path, "somebody-7").unwrap();
        assert_eq!(last(&mut locked(&path).unwrap().unwrap()), Owner::new("somebody-7").ok());
    }
}
