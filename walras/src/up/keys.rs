//! The keys and tokens of an installation on one machine, made at its first start and kept in its data folder,
//! readable by its owner alone.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use runtime::nats::key::{self, UserKey};

/// Longest key or token file, in bytes.
const SECRET_BYTES_MAX: u64 = 4_096;

/// Where keys and tokens are.
pub(super) struct Keys {
    credentials: PathBuf,
    tokens: PathBuf,
}

impl Keys {
    /// Keys in a data folder, which is made if it is missing.
    pub(super) fn in_folder(data_dir: &Path) -> Result<Self> {
        let keys = Self { credentials: data_dir.join("credentials"), tokens: data_dir.join("tokens") };
        [data_dir, &keys.credentials, &keys.tokens].into_iter().try_for_each(folder)?;
        Ok(keys)
    }

    /// The key of a principal, made if there is none yet.
    pub(super) fn user(&self, principal: &str) -> Result<UserKey> {
        let path = self.credential_file(principal);
        if let Some(seed) = read(&path)? {
            return key::from_seed(&seed).with_context(|| format!("key file {}", path.display()));
        }
        let user = key::generate()?;
        write(&path, &user.seed)?;
        Ok(user)
    }

    /// Where a principal's seed is.
    pub(super) fn credential_file(&self, principal: &str) -> PathBuf {
        self.credentials.join(format!("{principal}.nk"))
    }

    /// A tenant's token, made if there is none yet.
    pub(super) fn token(&self, tenant: &str) -> Result<String> {
        let path = self.tokens.join(tenant);
        if let Some(token) = read(&path)? {
            return Ok(token);
        }
        // A seed is 256 bits from the operating system, written in letters and digits.
        let token = format!("wt-{}", key::generate()?.seed);
        write(&path, &token)?;
        Ok(token)
    }

    /// Where the tokens of these tenants are.
    pub(super) fn token_files(&self, tenants: &[proto::TenantId]) -> BTreeMap<String, PathBuf> {
        tenants.iter().map(|tenant| (tenant.to_string(), self.tokens.join(tenant.as_str()))).collect()
    }
}

/// Makes a folder, readable by its owner alone, if it is missing.
pub(super) fn folder(path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("folder {}", path.display()))
}

fn read(path: &Path) -> Result<Option<String>> {
    let shown = || format!("file {}", path.display());
    match File::open(path) {
        Ok(file) => {
            let mut text = String::new();
            io::Read::read_to_string(&mut io::Read::take(file, SECRET_BYTES_MAX), &mut text)
                .with_context(shown)?;
            Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(shown),
    }
}

/// Writes a file whole or not at all.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    let beside = path.with_extension("new");
    let written = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    written().with_context(|| format!("file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_made_once_and_readable_by_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::in_folder(&folder.path().join("data")).unwrap();
        let first = keys.user("storefront").unwrap();
        let token = keys.token("acme").unwrap();
        let again = Keys::in_folder(&folder.path().join("data")).unwrap();
        assert_eq!(again.user("storefront").unwrap().seed, first.seed);
        assert_eq!(again.token("acme").unwrap(), token);
        assert_ne!(again.user("hypervisor").unwrap().seed, first.seed);
        let mode = fs::metadata(keys.credential_file("storefront")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_key_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::in_folder(folder.path()).unwrap();
        fs::write(keys.credential_file("s1"), "nonsense").unwrap();
        let error = format!("{:#}", keys.user("s1").map(|key| key.public).unwrap_err());
        assert!(error.contains("s1.nk") && !error.contains("nonsense"), "{error}");
    }
}
