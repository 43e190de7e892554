//! Every bound of a worker's life, by name.

use std::time::Duration;

/// The bounds of one life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// First wait after an attempt that failed: to redeem, to write files, to report, to cordon.
    pub retry: Duration,
    /// What that grows to. Two thousand workers that wait for one service ask it 33 times a second.
    pub retry_cap: Duration,
    /// How long after the bus can be heard again the service is asked what was missed, at most.
    pub catch_up: Duration,
    /// Between two looks at the Node while it is not ready.
    pub look: Duration,
    /// What a restart of the kubelet waits at most.
    pub kubelet_cap: Duration,
    /// How long a kubelet has to run for its earlier ends to be forgotten.
    pub kubelet_settled: Duration,
    /// How long a kubelet may take to end before it is killed.
    pub kubelet_stop: Duration,
    /// Requests to the API server at once while draining.
    pub drain_requests: usize,
    /// Between two lists of pods while draining.
    pub drain_list: Duration,
    /// How long an empty Node is watched before it is believed, at most; a tenth of the drain's time if that is less.
    pub drain_settle: Duration,
    /// First wait before an eviction that a budget refused is asked again; it grows to five times as much.
    pub drain_retry: Duration,
    /// Time kept free at the end of a drain, at most; a tenth of its time if that is less.
    pub drain_margin: Duration,
    /// Time kept free for leaving after the drain, at most; a fifth of the time left if that is less.
    pub leave: Duration,
    /// Time that is taken for draining and leaving where a notice is past already.
    pub past_notice: Duration,
    /// How long after `gone_at` the last report is tried.
    pub last_report: Duration,
    /// Entries of what could not be done in one report; the others are counted.
    pub undone: usize,
    /// Longest text from outside kept in a report, in bytes.
    pub text_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Limits {
            retry: seconds(1),
            retry_cap: seconds(60),
            catch_up: seconds(5),
            look: seconds(2),
            kubelet_cap: seconds(60),
            kubelet_settled: seconds(600),
            kubelet_stop: seconds(5),
            drain_requests: 10,
            drain_list: seconds(2),
            drain_settle: seconds(3),
            drain_retry: seconds(1),
            drain_margin: seconds(5),
            leave: seconds(10),
            past_notice: seconds(5),
            last_report: seconds(60),
            undone: 100,
            text_bytes: 200,
        }
    }
}
