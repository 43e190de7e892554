//! The server's configuration file. JSON, which is a subset of the server's own format.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::access::{AccessError, SYSTEM_ACCOUNT};
use super::server::ServerSpec;
use crate::bus::MESSAGE_BYTES_MAX;

/// What may wait for one connection before the server cuts it, in bytes: several readers that catch up share
/// a connection.
const PENDING_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Size at which the server's log begins anew, in bytes, and how many old ones are kept.
const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;
const LOGS_MAX: u32 = 3;

/// Where the child keeps its files.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) dir: PathBuf,
    pub(super) config: PathBuf,
    pub(super) store: PathBuf,
    pub(super) ports: PathBuf,
    pub(super) log: PathBuf,
    /// What the child says before it has a log.
    pub(super) output: PathBuf,
    pub(super) lock: PathBuf,
}

impl Files {
    pub(super) fn below(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            config: dir.join("nats-server.conf"),
            store: dir.join("jetstream"),
            ports: dir.join("ports"),
            log: dir.join("nats-server.log"),
            output: dir.join("nats-server.out"),
            lock: dir.join("lock"),
        }
    }

    /// Makes the folders, for nobody else to look into, and forgets port files of servers that are gone.
    pub(super) fn prepare(&self) -> io::Result<()> {
        let _ = fs::remove_dir_all(&self.ports);
        for dir in [&self.dir, &self.store, &self.ports] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        Ok(())
    }
}

/// The ports the server listens on; 0 = let it choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) client: u16,
    pub(super) monitoring: u16,
}

/// The file's content.
pub(super) fn content(spec: &ServerSpec, files: &Files, ports: Ports) -> Result<Value, AccessError> {
    let port = |port: u16| if port == 0 { -1 } else { i32::from(port) };
    let mut config = json!({
        "server_name": spec.server_name,
        "host": spec.host,
        "port": port(ports.client),
        "http": format!("127.0.0.1:{}", port(ports.monitoring)),
        "ports_file_dir": files.ports,
        "max_payload": MESSAGE_BYTES_MAX,
        "max_pending": PENDING_BYTES_MAX,
        "log_file": files.log,
        "logfile_size_limit": LOG_BYTES_MAX,
        "logfile_max_num": LOGS_MAX,
        "jetstream": {
            // It makes `jetstream` below this by itself.
            "store_dir": files.dir,
            "max_file_store": spec.max_file_store_bytes,
            "max_memory_store": spec.max_memory_store_bytes,
            // Without this an acknowledged message can be two minutes from the disk.
            "sync_interval": "always",
        },
    });
    if let (Some(access), Some(config)) = (&spec.access, config.as_object_mut()) {
        config.insert("accounts".to_owned(), access.accounts()?);
        config.insert("system_account".to_owned(), json!(SYSTEM_ACCOUNT));
        config.extend(access.authorization().map(|block| ("authorization".to_owned(), block)));
    }
    Ok(config)
}

/// Writes it, readable by us alone, whole or not at all.
pub(super) fn write(content: &Value, path: &Path) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(format!("{content:#}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, path)
}
