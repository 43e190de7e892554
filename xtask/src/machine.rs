//! What measurements were made on.

use std::fs;
use std::process::Command;
use std::thread;

use crate::{process, table};

/// The size of this machine, as a table.
pub(crate) fn description() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let cores = thread::available_parallelism().map_or("unknown".to_owned(), |cores| cores.to_string());
    let rows = [
        ("cores", cores),
        ("CPU", field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(unknown)),
        ("memory", field(&read("/proc/meminfo"), "MemTotal").map_or_else(unknown, |text| gibibytes(&text))),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("load before", read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")),
        ("compiler", process::ask(Command::new("rustc").arg("--version")).unwrap_or_else(|_| unknown())),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    table::markdown(&["machine", ""], &rows)
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// The value of the first line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

fn gibibytes(text: &str) -> String {
    let kibibytes = text.split(' ').next().and_then(|number| number.parse::<u64>().ok());
    kibibytes.map_or_else(unknown, |kibibytes| format!("{} GiB", (kibibytes + (1 << 19)) >> 20))
}

#[cfg(test)]
mod tests {
    use super::{field, gibibytes};

    #[test]
    fn fields_are_found_and_sizes_rounded() {
        let text = "processor\t: 0\nmodel name\t: A CPU @ 2 GHz\nmodel name\t: another\n";
        assert_eq!(field(text, "model name").as_deref(), Some("A CPU @ 2 GHz"));
        assert_eq!(field(text, "model"), None);
        assert_eq!(gibibytes("24683744 kB"), "24 GiB");
        assert_eq!(gibibytes("much"), "unknown");
    }
}
