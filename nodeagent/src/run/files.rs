//! Files that a crash leaves whole: written beside their place, synced, and put there in one step.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// What only its owner may read.
pub(crate) const SECRET: u32 = 0o600;
/// What everybody may read.
pub(crate) const PUBLIC: u32 = 0o644;

/// Largest file read, in bytes.
const READ_BYTES_MAX: u64 = 4 << 20;

/// Replaces a file, or makes it. Folders on the way are made for their owner alone.
///
/// # Errors
/// When something cannot be written; what was there is still there then.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let name = path.file_name().ok_or_else(|| io::Error::other("a path without a name"))?;
    let beside = folder.join(format!(".{}.new", name.to_string_lossy()));
    // What a crash left there may have other permissions.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = write(&beside, bytes, mode).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _cleaned = fs::remove_file(&beside);
    }
    written?;
    // The name is in the folder, so the folder is what has to be synced.
    File::open(folder)?.sync_all()
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A file's bytes, none if there is no such file.
///
/// # Errors
/// When it cannot be read, or is too large to be one of ours.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > READ_BYTES_MAX => Err(io::Error::other("the file is too large")),
        Ok(_) => fs::read(path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_its_permissions() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a/b");
        assert_eq!(read(&path).expect("nothing"), None);
        for (text, mode) in [("one", PUBLIC), ("two", SECRET), ("three", SECRET)] {
            replace(&path, text.as_bytes(), mode).expect("written");
            assert_eq!(read(&path).expect("a file").expect("a file"), text.as_bytes());
            let metadata = fs::metadata(&path).expect("a file");
            assert_eq!(metadata.permissions().mode() & 0o777, mode);
        }
        let left: Vec<_> = fs::read_dir(folder.path().join("a")).expect("a folder").collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(replace(Path::new("/proc/nothing/here"), b"", PUBLIC).is_err());
    }

    #[test]
    fn what_stood_there_stays_if_nothing_can_be_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        replace(&path, b"old", SECRET).expect("written");
        // A folder in the place of the new file stands for a disk that takes nothing.
        fs::create_dir(folder.path().join(".state.new")).expect("a folder");
        assert!(replace(&path, b"new", SECRET).is_err());
        assert_eq!(read(&path).expect("a file").expect("a file"), b"old");
    }
}
