//! What the process and its build are, in the names that every Prometheus client uses for them.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntGauge, IntGaugeVec, Opts, Registry};

/// What this module exports; dashboards and alerts may name it.
pub const PROCESS_METRICS: [&str; 7] = [
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
    "walras_build_info",
];

/// The commit the build was made from, where whoever built it said so.
const REVISION: &str = match option_env!("WALRAS_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

pub(super) fn register(registry: &Registry) -> Result<(), prometheus::Error> {
    let build = IntGaugeVec::new(
        Opts::new("walras_build_info", "The version that runs; always 1."),
        &["version", "revision"],
    )?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION"), REVISION]).set(1);
    registry.register(Box::new(build))?;
    registry.register(Box::new(Process::new()?))
}

/// Reads `/proc/self` whenever it is asked. Where there is no `/proc`, only CPU and start time are told.
struct Process {
    cpu: Counter,
    max_fds: IntGauge,
    open_fds: IntGauge,
    resident: IntGauge,
    start: Gauge,
    threads: IntGauge,
}

impl Process {
    fn new() -> Result<Self, prometheus::Error> {
        let start = Gauge::new("process_start_time_seconds", "When the process started, in Unix time.")?;
        // Metrics are set up before anything else; that is near enough to the start for counting restarts.
        start.set(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()));
        Ok(Self {
            cpu: Counter::new("process_cpu_seconds_total", "CPU time used, user and system.")?,
            max_fds: IntGauge::new("process_max_fds", "File descriptors that may be open.")?,
            open_fds: IntGauge::new("process_open_fds", "File descriptors that are open.")?,
            resident: IntGauge::new("process_resident_memory_bytes", "Memory held.")?,
            start,
            threads: IntGauge::new("process_threads", "Threads.")?,
        })
    }

    fn refresh(&self) {
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let seconds = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
        self.cpu.inc_by((seconds - self.cpu.get()).max(0.0));
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            if let Some(kibibytes) = field(&status, "VmRSS:") {
                self.resident.set(kibibytes.saturating_mul(1024));
            }
            if let Some(threads) = field(&status, "Threads:") {
                self.threads.set(threads);
            }
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // The listing itself holds one descriptor open.
            self.open_fds.set((open.count() as i64).saturating_sub(1));
        }
        if let Ok(limits) = fs::read_to_string("/proc/self/limits")
            && let Some(most) = field(&limits, "Max open files")
        {
            self.max_fds.set(most);
        }
    }

    fn parts(&self) -> [&dyn Collector; 6] {
        [&self.cpu, &self.max_fds, &self.open_fds, &self.resident, &self.start, &self.threads]
    }
}

/// The first number behind `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<i64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.refresh();
        self.parts().into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_told_by_the_names_listed() {
        let registry = Registry::new();
        register(&registry).unwrap();
        let families = registry.gather();
        let names: Vec<&str> = families.iter().map(MetricFamily::name).collect();
        assert_eq!(names, PROCESS_METRICS);
        for family in &families {
            let metric = &family.get_metric()[0];
            let value = metric.get_gauge().get_value() + metric.get_counter().get_value();
            assert!(value > 0.0, "{} is {value}", family.name());
        }
    }
}
