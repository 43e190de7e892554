//! Counting tests from what the test runners print.

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed, were ended because they took too long, or could not be started.
    pub(crate) failed: u64,
}

impl Tally {
    /// Adds what a closing line of nextest or of the standard test harness says; any other line adds nothing.
    pub(crate) fn see(&mut self, line: &str) {
        let Some(counts) = counts_of(line.trim()) else { return };
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

fn counts_of(line: &str) -> Option<&str> {
    if let Some(result) = line.strip_prefix("test result: ") {
        return result.split_once(". ").map(|(_, counts)| counts);
    }
    let (head, counts) = line.strip_prefix("Summary [")?.split_once(" run: ")?;
    (head.ends_with("tests") || head.ends_with("test")).then_some(counts)
}

#[cfg(test)]
mod tests {
    use super::Tally;

    fn tally(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        for line in lines {
            tally.see(line);
        }
        tally
    }

    #[test]
    fn closing_lines_are_counted() {
        for (line, passed, failed) in [
            ("     Summary [   0.005s] 1 test run: 1 passed, 0 skipped", 1, 0),
            (
                "     Summary [  41.205s] 345 tests run: 341 passed (2 slow), 3 failed, 1 timed out, 7 skipped",
                341,
                4,
            ),
            ("     Summary [   1.0s] 7/9 tests run: 5 passed (1 flaky), 2 exec failed, 2 skipped", 5, 2),
            (
                "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.00s",
                12,
                0,
            ),
            ("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out", 3, 2),
        ] {
            assert_eq!(tally(&[line]), Tally { passed, failed }, "{line}");
        }
    }

    #[test]
    fn other_lines_count_nothing() {
        let lines =
            ["running 3 tests", "test a ... ok", "        PASS [ 0.1s] proto", "summary: 3 passed", ""];
        assert_eq!(tally(&lines), Tally::default());
    }

    #[test]
    fn several_closing_lines_add_up() {
        let lines = [
            "test result: ok. 2 passed; 0 failed; 0 ignored",
            "Summary [ 1s] 3 tests run: 3 passed, 0 skipped",
        ];
        assert_eq!(tally(&lines), Tally { passed: 5, failed: 0 });
    }
}
