//! Log lines, on standard error.

use std::io;

use tracing_subscriber::EnvFilter;

/// From this verbosity on, what concerns single connections is logged.
const DETAIL: i32 = 5;

/// Begins to log. `RUST_LOG` overrides the verbosity.
pub(super) fn begin(verbosity: i32) {
    let level = if verbosity >= DETAIL { "info,nodeagent=debug" } else { "info" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let begun =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).try_init();
    if let Err(error) = begun {
        eprintln!("cannot log: {error}");
    }
}
