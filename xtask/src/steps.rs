//! The steps of a run: each announced with one line, timed, and listed at the end.

use std::fmt::Write;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::table;

/// What was done so far, and what was left out.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<(String, f64)>,
    skipped: Vec<String>,
}

impl Steps {
    /// Does one step. Its error says which step failed.
    pub(crate) fn step<T>(&mut self, name: &str, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("==> {name}: {what}");
        let started = Instant::now();
        let result = work().with_context(|| format!("{name} failed"));
        let seconds = started.elapsed().as_secs_f64();
        println!("    {name} took {seconds:.1} s");
        self.done.push((name.to_owned(), seconds));
        result
    }

    /// Says at once, and again at the end, that something was not checked, and why.
    pub(crate) fn skip(&mut self, what: impl Into<String>) {
        let what = what.into();
        println!("    skipped: {what}");
        self.skipped.push(what);
    }

    /// All steps with their seconds, and what was left out.
    pub(crate) fn report(&self) -> String {
        let rows: Vec<Vec<String>> =
            self.done.iter().map(|(name, seconds)| vec![name.clone(), format!("{seconds:.1}")]).collect();
        let mut text = table::markdown(&["step", "seconds"], &rows);
        for what in &self.skipped {
            // Writing to a text cannot fail.
            let _ = writeln!(text, "skipped: {what}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::Steps;

    #[test]
    fn a_failed_step_is_named_and_listed() {
        let mut steps = Steps::default();
        let error =
            steps.step("purity", "no clock", || -> anyhow::Result<()> { bail!("tokio") }).unwrap_err();
        assert_eq!(format!("{error:#}"), "purity failed: tokio");
        steps.skip("advisories: no database");
        let report = steps.report();
        assert!(report.contains("| purity") && report.contains("skipped: advisories"), "{report}");
    }
}
