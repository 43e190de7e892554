//! Running other programs: without standard input, with a limit on their time, and with errors that show the
//! command line.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::place;

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(50);

/// How long output is awaited from processes that a finished program left behind.
const LINGER: Duration = Duration::from_secs(5);

/// Lines of output that may wait to be printed.
const LINES_WAITING: usize = 1024;

/// Limit for commands that only ask something, such as a version.
pub(crate) const ASK: Duration = Duration::from_mins(5);

/// A cargo command in the workspace. What the cargo that started us says about this package is taken away: build
/// scripts watch some of those variables and would run again at every change between the two.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(place::root());
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// The command line as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs a command whose output goes where ours goes.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<()> {
    let shown = shown(command);
    let mut child =
        command.stdin(Stdio::null()).spawn().with_context(|| format!("`{shown}` cannot be started"))?;
    let status = wait(&mut child, &shown, Instant::now() + limit, limit)?;
    succeeded(&shown, status)
}

/// Runs a command for its standard output; what it writes to standard error becomes part of the error.
pub(crate) fn ask(command: &mut Command) -> Result<String> {
    ask_for(command, ASK)
}

/// As [`ask`], with another limit.
pub(crate) fn ask_for(command: &mut Command, limit: Duration) -> Result<String> {
    let shown = shown(command);
    let mut lines = Vec::new();
    let mut problems = Vec::new();
    let status = follow(command, limit, |line, from| match from {
        From::Stdout => lines.push(line.to_owned()),
        From::Stderr => problems.push(line.to_owned()),
    })?;
    if !status.success() {
        bail!("`{shown}` failed ({status}): {}", problems.join("\n"));
    }
    Ok(lines.join("\n"))
}

/// Which output a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Runs a command whose output goes where ours goes, and shows every line of it to `seen` as well.
pub(crate) fn watch(
    command: &mut Command,
    limit: Duration,
    mut seen: impl FnMut(&str),
) -> Result<ExitStatus> {
    follow(command, limit, |line, from| {
        // A reader that went away, such as a closed pipe, is no reason to stop testing.
        let _ = match from {
            From::Stdout => writeln!(std::io::stdout().lock(), "{line}"),
            From::Stderr => writeln!(std::io::stderr().lock(), "{line}"),
        };
        seen(line);
    })
}

/// Runs a command for its lines of standard output; what it writes to standard error goes where ours goes.
pub(crate) fn gather(
    command: &mut Command,
    limit: Duration,
    mut each: impl FnMut(&str),
) -> Result<ExitStatus> {
    follow(command, limit, |line, from| match from {
        From::Stdout => each(line),
        From::Stderr => eprintln!("{line}"),
    })
}

/// An error unless the status is that of success.
pub(crate) fn succeeded(shown: &str, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

fn follow(command: &mut Command, limit: Duration, mut each: impl FnMut(&str, From)) -> Result<ExitStatus> {
    let shown = shown(command);
    let deadline = Instant::now() + limit;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("`{shown}` cannot be started"))?;
    let lines = lines_of(&mut child);
    let mut ended_at = None;
    loop {
        match lines.recv_timeout(POLL) {
            Ok((line, from)) => each(&line, from),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                if ended_at.is_none() && child.try_wait()?.is_some() {
                    ended_at = Some(Instant::now());
                }
                if ended_at.is_some_and(|at| at.elapsed() > LINGER) {
                    break;
                }
            }
        }
        if Instant::now() > deadline {
            break;
        }
    }
    wait(&mut child, &shown, deadline, limit)
}

fn lines_of(child: &mut Child) -> Receiver<(String, From)> {
    let (sender, receiver) = sync_channel(LINES_WAITING);
    if let Some(output) = child.stdout.take() {
        send_lines(output, From::Stdout, sender.clone());
    }
    if let Some(output) = child.stderr.take() {
        send_lines(output, From::Stderr, sender);
    }
    receiver
}

fn send_lines(output: impl Read + Send + 'static, from: From, sender: SyncSender<(String, From)>) {
    thread::spawn(move || {
        // Output that is not UTF-8 must not end the reading, or the program would block on a full pipe.
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if sender.send((line, from)).is_err() {
                return;
            }
        }
    });
}

fn wait(child: &mut Child, shown: &str, deadline: Instant, limit: Duration) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().with_context(|| format!("`{shown}` cannot be awaited"))? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            child.kill().with_context(|| format!("`{shown}` cannot be ended"))?;
            child.wait()?;
            bail!("`{shown}` was ended: it took longer than {} s", limit.as_secs());
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failure_shows_the_command_and_what_it_said() {
        let error = ask(&mut shell("echo broken >&2; exit 3")).unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.contains("broken") && error.contains('3'), "{error}");
    }

    #[test]
    fn both_outputs_are_seen_to_the_last_line() {
        let mut seen = Vec::new();
        let status = follow(&mut shell("echo one; echo two >&2; printf three"), ASK, |line, from| {
            seen.push((line.to_owned(), from));
        });
        seen.sort_by(|a, b| a.0.cmp(&b.0));
        assert!(status.unwrap().success());
        let expected = [("one", From::Stdout), ("three", From::Stdout), ("two", From::Stderr)];
        assert_eq!(seen, expected.map(|(line, from)| (line.to_owned(), from)));
    }

    #[test]
    fn what_takes_too_long_is_ended() {
        let error = run(&mut shell("exec sleep 600"), Duration::from_millis(100)).unwrap_err().to_string();
        assert!(error.contains("was ended"), "{error}");
    }

    #[test]
    fn there_is_no_standard_input_to_wait_for() {
        assert_eq!(ask(&mut shell("cat; echo end")).unwrap(), "end");
    }
}
