//! The step between us and the server: our own binary, started again, that binds the server's life to ours and
//! then becomes the server.
//!
//! A child survives its parent unless somebody sees to it. The kernel can: a process may ask for a signal when
//! the thread that started it ends, and keeps that across `exec`. The asking has to happen in the child, between
//! fork and exec, where Rust code is unsafe to run; in a program of its own it is not.
//!
//! The guard also takes the data directory's lock and hands it on to the server, so that a server started by our
//! successor waits for the last one to be really gone before it touches the store.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use thiserror::Error;

/// The hidden subcommand under which our binary calls [`exec`].
pub const SUBCOMMAND: &str = "__nats-server";

/// How long another server may take to leave the data directory.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);

/// Pause between two looks at the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// How the guard is started: a program and its first arguments, followed by those of [`exec`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardCommand {
    /// The program.
    pub program: PathBuf,
    /// Its first arguments.
    pub arguments: Vec<OsString>,
}

impl GuardCommand {
    /// The program that is running now, under [`SUBCOMMAND`].
    ///
    /// # Errors
    /// When the operating system does not tell which that is.
    pub fn this_program() -> std::io::Result<Self> {
        Ok(Self { program: std::env::current_exe()?, arguments: vec![SUBCOMMAND.into()] })
    }
}

/// Why the server was not started. The guard prints it and ends.
#[derive(Debug, Error)]
pub enum GuardError {
    /// It was called by hand.
    #[error("usage: {SUBCOMMAND} PARENT-PID LOCK-FILE NATS-SERVER ARGUMENTS…")]
    Usage,
    /// The process that wanted a server is gone.
    #[error("the process {parent} that asked for a nats-server is gone")]
    Orphaned {
        /// Which process that was.
        parent: u32,
    },
    /// Another server has the data directory.
    #[error("{path}: another nats-server uses this directory")]
    Locked {
        /// The lock.
        path: PathBuf,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What it said.
        source: std::io::Error,
    },
}

/// Becomes the server: asks for SIGKILL when the parent's thread ends, checks that it has not ended already,
/// takes the lock, and replaces this process. Returns only when that failed. `arguments` are what follows
/// [`SUBCOMMAND`] on the command line.
pub fn exec(arguments: impl IntoIterator<Item = OsString>) -> GuardError {
    match prepare(arguments.into_iter()) {
        Ok((mut server, name)) => GuardError::System { what: name, source: server.exec() },
        Err(error) => error,
    }
}

fn prepare(mut arguments: impl Iterator<Item = OsString>) -> Result<(Command, String), GuardError> {
    let parent = arguments.next().and_then(|parent| parent.to_str()?.parse::<u32>().ok());
    let (Some(parent), Some(lock), Some(server)) = (parent, arguments.next(), arguments.next()) else {
        return Err(GuardError::Usage);
    };
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source: rustix::io::Errno| GuardError::System { what, source: source.into() }
    };
    // SIGKILL, because a server that hangs must go as well, and its store is made for it.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("parent death signal"))?;
    // The parent may have died before the line above; then no signal will ever come.
    if getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get().cast_unsigned()) != Some(parent) {
        return Err(GuardError::Orphaned { parent });
    }
    let lock = take_lock(Path::new(&lock))?;
    fcntl_setfd(&lock, FdFlags::empty()).map_err(failed("lock"))?;
    // The server inherits the open file and with it the lock, until it ends however it ends.
    std::mem::forget(lock);
    let name = server.to_string_lossy().into_owned();
    let mut command = Command::new(server);
    command.args(arguments);
    Ok((command, name))
}

fn take_lock(path: &Path) -> Result<File, GuardError> {
    let system = |source| GuardError::System { what: path.display().to_string(), source };
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(system)?;
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(system(source)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Err(GuardError::Locked { path: path.to_owned() }),
        }
    }
}
