//! A throw-away PostgreSQL server for tests, made with what is installed. Standard library only.
//!
//! Where PostgreSQL is not installed, [`Postgres::shared`] says so once and tests skip that half, unless
//! `WALRAS_REQUIRE_POSTGRES=1` is set: then it panics, so that an integration server cannot skip it unseen.
//! The server ends with the process that started it, however that ends.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take to come up. Recovery after a kill on a busy machine is the slow case.
const START_SECONDS_MAX: u64 = 60;
/// Between two looks at whether it is up.
const POLL_MILLIS: u64 = 20;

/// Runs the server as its child and waits on standard input, which closes when the test process is gone,
/// killed or not. Then the server ends and its folder goes.
const GUARD: &str = r#"
trap '' INT TERM HUP
"$1" -D "$2/data" -k "$2" >>"$2/log" 2>&1 &
pid=$!
while read -r order; do
  case "$order" in
    kill) kill -9 "$pid"; wait "$pid" 2>/dev/null ;;
    start) "$1" -D "$2/data" -k "$2" >>"$2/log" 2>&1 & pid=$! ;;
  esac
done
kill -QUIT "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
rm -rf "$2"
"#;

/// A running server with databases of its own.
#[derive(Debug)]
pub struct Postgres {
    binaries: PathBuf,
    folder: PathBuf,
    account: Option<(u32, u32)>,
    guard: Mutex<Child>,
    databases: AtomicU32,
}

impl Postgres {
    /// The server all tests of one process share, started at first use; `None` where it cannot be had.
    ///
    /// # Panics
    /// Where it is required and cannot be had, or is there and does not start.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Postgres>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// A server of its own, for tests that kill it; `None` where PostgreSQL is not installed.
    ///
    /// # Panics
    /// As [`Postgres::shared`].
    pub fn start() -> Option<Self> {
        let Some(binaries) = find_binaries() else {
            let why = "PostgreSQL is not installed (no initdb in PATH or /usr/lib/postgresql/*/bin)";
            assert!(std::env::var_os("WALRAS_REQUIRE_POSTGRES").is_none_or(|value| value != "1"), "{why}");
            eprintln!("skipped on PostgreSQL: {why}");
            return None;
        };
        match Self::start_from(binaries) {
            Ok(server) => Some(server),
            Err(why) => panic!("PostgreSQL is installed but does not start: {why}"),
        }
    }

    fn start_from(binaries: PathBuf) -> Result<Self, String> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let account = account()?;
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("walras-postgres-{}-{number}", std::process::id()));
        let failed = |what: &str, error: io::Error| format!("{what} {}: {error}", folder.display());
        fs::create_dir(&folder).map_err(|error| failed("create", error))?;
        if let Some((user, group)) = account {
            chown(&folder, Some(user), Some(group)).map_err(|error| failed("give away", error))?;
        }
        // --no-sync is for this command only: the server syncs, as configured below.
        let mut initdb = as_account(Command::new(binaries.join("initdb")), account);
        initdb.arg("-D").arg(folder.join("data"));
        initdb.args(["-U", "walras", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]);
        run(&mut initdb)?;
        let mut settings = String::new();
        for line in [
            "listen_addresses = ''",
            "fsync = on",
            "max_connections = 64",
            "shared_buffers = 32MB",
            "max_wal_size = 256MB",
            "autovacuum = off",
        ] {
            let _ = writeln!(settings, "{line}");
        }
        let file = folder.join("data/postgresql.auto.conf");
        fs::write(&file, settings).map_err(|error| failed("configure", error))?;
        let mut guard = as_account(Command::new("sh"), account);
        guard.args(["-c", GUARD, "walras-postgres"]).arg(binaries.join("postgres")).arg(&folder);
        guard.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let guard = guard.spawn().map_err(|error| failed("start the server in", error))?;
        let server =
            Self { binaries, folder, account, guard: Mutex::new(guard), databases: AtomicU32::new(0) };
        server.wait_until_up()?;
        Ok(server)
    }

    /// Creates an empty database and returns its URL.
    ///
    /// # Panics
    /// Where the server does not do it.
    pub fn database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        if let Err(why) = self.sql("postgres", &format!("CREATE DATABASE {name}")) {
            panic!("cannot create a database: {why}");
        }
        format!("postgres:///{name}?user=walras&host={}", self.folder.display())
    }

    /// Kills the server with SIGKILL. What it acknowledged must be there after [`Postgres::restart`].
    ///
    /// # Panics
    /// Where the server was not running.
    pub fn kill(&self) {
        let pid = fs::read_to_string(self.folder.join("data/postmaster.pid"))
            .ok()
            .and_then(|text| text.lines().next().map(str::to_owned));
        let Some(pid) = pid else { panic!("no server to kill in {}", self.folder.display()) };
        // Its children notice, end, and only then let go of the shared memory that a new server must have.
        let family: Vec<String> = children(&pid).into_iter().chain([pid]).collect();
        self.order("kill");
        assert!(poll(|| family.iter().all(|pid| is_gone(pid))), "the server survives SIGKILL");
    }

    /// Starts the killed server on its old data, and waits until it answers.
    ///
    /// # Panics
    /// Where it does not come up.
    pub fn restart(&self) {
        self.order("start");
        assert!(poll(|| self.answers()), "the server does not come up again: {}", self.log());
    }

    fn order(&self, order: &str) {
        use io::Write as _;
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        let written = guard.stdin.as_mut().map(|orders| writeln!(orders, "{order}"));
        assert!(matches!(written, Some(Ok(()))), "the server's guard is gone");
    }

    fn wait_until_up(&self) -> Result<(), String> {
        if poll(|| self.answers()) { Ok(()) } else { Err(self.log()) }
    }

    fn answers(&self) -> bool {
        self.sql("postgres", "SELECT 1").is_ok()
    }

    fn sql(&self, database: &str, sql: &str) -> Result<(), String> {
        let mut psql = as_account(Command::new(self.binaries.join("psql")), self.account);
        psql.args(["-X", "-q", "-U", "walras", "-d", database, "-c", sql]).arg("-h").arg(&self.folder);
        run(&mut psql)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let guard = self.guard.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(guard.stdin.take());
        // The guard ends by itself now; waiting keeps it from staying behind as a zombie.
        let _ = guard.wait();
    }
}

/// State and parent of a process, as the kernel tells them.
fn stat(pid: &str) -> Option<(String, String)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the last parenthesis may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned);
    Some((fields.next()?, fields.next()?))
}

fn is_gone(pid: &str) -> bool {
    stat(pid).is_none_or(|(state, _)| state == "Z")
}

fn children(parent: &str) -> Vec<String> {
    let processes: Vec<_> =
        fs::read_dir("/proc").map_or_else(|_| Vec::new(), |entries| entries.flatten().collect());
    let names = processes.iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|pid| stat(pid).is_some_and(|(_, its)| its == parent)).collect()
}

fn poll(done: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
    loop {
        if done() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(POLL_MILLIS));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = format!("{}", command.get_program().display());
    let output = command.current_dir("/").stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

/// PostgreSQL refuses to run as root, so root runs it as the account that the packages create.
fn account() -> Result<Option<(u32, u32)>, String> {
    let own = fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own));
    if own.is_ok_and(|user| user != 0) {
        return Ok(None);
    }
    let accounts = fs::read_to_string("/etc/passwd").map_err(|error| format!("/etc/passwd: {error}"))?;
    let line = accounts.lines().find(|line| line.starts_with("postgres:"));
    let numbers = line.and_then(|line| {
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    numbers.map(Some).ok_or_else(|| "we are root and there is no account postgres".to_owned())
}

fn as_account(mut command: Command, account: Option<(u32, u32)>) -> Command {
    if let Some((user, group)) = account {
        command.uid(user).gid(group);
    }
    command
}

fn find_binaries() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    let complete =
        |folder: &Path| ["initdb", "postgres", "psql"].iter().all(|name| folder.join(name).is_file());
    std::env::split_paths(&path).chain(versions.into_iter().rev()).find(|folder| complete(folder))
}
