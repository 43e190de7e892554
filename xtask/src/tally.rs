//! Counting tests from what the test runners print.

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed, were ended because they took too long, or could not be started.
    pub(crate) failed: u64,
}

/// Who runs the tests. Each shows the output of failed tests as well, which may hold the other's closing lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runner {
    /// nextest; it closes once for everything.
    Nextest,
    /// The standard test harness; it closes once for each test binary, at the start of a line.
    Harness,
}

impl Tally {
    /// Adds what a runner's closing line says; any other line adds nothing.
    pub(crate) fn see(&mut self, runner: Runner, line: &str) {
        let counts = match runner {
            Runner::Nextest => nextest_counts(line),
            Runner::Harness => harness_counts(line),
        };
        let Some(counts) = counts else { return };
        for part in counts.split([',', ';']) {
            let Some((number, outcome)) = part.trim().split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            // nextest adds remarks in brackets, such as `12 passed (1 slow)`.
            match outcome.split(" (").next().unwrap_or_default() {
                "passed" => self.passed += number,
                "failed" | "timed out" | "exec failed" => self.failed += number,
                _ => {}
            }
        }
    }
}

fn nextest_counts(line: &str) -> Option<&str> {
    let (head, counts) = line.trim_start().strip_prefix("Summary [")?.split_once(" run: ")?;
    (head.ends_with("tests") || head.ends_with("test")).then_some(counts)
}

fn harness_counts(line: &str) -> Option<&str> {
    line.strip_prefix("test result: ")?.split_once(". ").map(|(_, counts)| counts)
}

#[cfg(test)]
mod tests {
    use super::{Runner, Tally};

    fn tally(runner: Runner, lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        for line in lines {
            tally.see(runner, line);
        }
        tally
    }

    #[test]
    fn closing_lines_are_counted() {
        for (runner, line, passed, failed) in [
            (Runner::Nextest, "     Summary [   0.005s] 1 test run: 1 passed, 0 skipped", 1, 0),
            (
                Runner::Nextest,
                "     Summary [  41.2s] 45 tests run: 41 passed (2 slow), 3 failed, 1 timed out, 7 skipped",
                41,
                4,
            ),
            (
                Runner::Nextest,
                "     Summary [   1.0s] 7/9 tests run: 5 passed (1 flaky), 2 exec failed, 2 skipped",
                5,
                2,
            ),
            (
                Runner::Harness,
                "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; finished in 0.00s",
                12,
                0,
            ),
            (
                Runner::Harness,
                "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
                3,
                2,
            ),
        ] {
            assert_eq!(tally(runner, &[line]), Tally { passed, failed }, "{line}");
        }
    }

    #[test]
    fn other_lines_count_nothing() {
        let lines = ["running 3 tests", "test a ... ok", "    PASS [ 0.1s] proto", "summary: 3 passed", ""];
        assert_eq!(tally(Runner::Nextest, &lines), Tally::default());
        assert_eq!(tally(Runner::Harness, &lines), Tally::default());
    }

    #[test]
    fn a_failed_tests_own_output_is_not_counted_again() {
        let shown = "    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 28 filtered out";
        let closing = "     Summary [ 1.0s] 3 tests run: 2 passed, 1 failed, 0 skipped";
        assert_eq!(tally(Runner::Nextest, &[shown, closing]), Tally { passed: 2, failed: 1 });
        assert_eq!(tally(Runner::Harness, &[shown]), Tally::default());
    }

    #[test]
    fn several_closing_lines_add_up() {
        let lines = [
            "test result: ok. 2 passed; 0 failed; 0 ignored",
            "test result: ok. 3 passed; 0 failed; 0 ignored",
        ];
        assert_eq!(tally(Runner::Harness, &lines), Tally { passed: 5, failed: 0 });
    }
}
