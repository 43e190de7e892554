//! `walras nats-accounts|nats-key`: what a broker of one's own needs.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};
use runtime::nats::callout::Issuer;
use runtime::nats::key;

use super::table::print_line;
use crate::cli::{KeyArgs, ServiceArgs};

/// Prints the accounts and permissions that follow from the configuration, for the broker's `include`.
///
/// # Errors
/// One line that names what is wrong in the configuration.
pub fn accounts(arguments: &ServiceArgs) -> Result<()> {
    let config = arguments.config.load()?.config;
    print_line(config.accounts_file()?.trim_end())
}

/// Makes a user's key, or an issuer's: the seed goes into a file that only its owner can read, the public half is printed.
///
/// # Errors
/// When the file is there already or cannot be written.
pub fn key(arguments: &KeyArgs) -> Result<()> {
    let (public, seed) = if arguments.issuer {
        let issuer = Issuer::generate();
        (issuer.public(), issuer.seed()?)
    } else {
        let user = key::generate()?;
        (user.public, user.seed)
    };
    let shown = || format!("file {}", arguments.file.display());
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&arguments.file)
        .with_context(shown)?;
    file.write_all(format!("{seed}\n").as_bytes()).and_then(|()| file.sync_all()).with_context(shown)?;
    print_line(&public)
}
