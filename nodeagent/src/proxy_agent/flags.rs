//! The flags of upstream's agent: the same names, forms and, but for keep-alive, defaults.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::konnectivity::AgentId;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ServerCountSource {
    Default,
    Max,
}

/// What upstream's agent can be told. Flags that mean nothing here are accepted and hidden.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "upstream has as many switches")]
pub(crate) struct Flags {
    /// Host name or address of the proxy server.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) proxy_server_host: String,
    /// Port of the proxy server.
    #[arg(long, default_value_t = 8091, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) proxy_server_port: u16,
    /// Protocols to be named in TLS beside h2, separated by commas.
    #[arg(long, default_value = "")]
    alpn_proto: String,
    /// File with the certificates of those who may have signed the server's.
    #[arg(long, default_value = "", value_parser = path)]
    pub(crate) ca_cert: PathBuf,
    /// File with the agent's own certificate.
    #[arg(long, default_value = "", value_parser = path)]
    pub(crate) agent_cert: PathBuf,
    /// File with the agent's own key.
    #[arg(long, default_value = "", value_parser = path)]
    pub(crate) agent_key: PathBuf,
    /// File with the token that says who the agent is. It is read for every attempt to connect.
    #[arg(long, default_value = "", value_parser = path)]
    pub(crate) service_account_token_path: PathBuf,
    /// The agent's name, for all its streams; if not given each has one of its own, as it should.
    #[arg(long, env = "PROXY_AGENT_ID", default_value = "")]
    agent_id: String,
    /// What the agent can reach, URL-encoded: ipv4, ipv6, host, cidr, default-route.
    #[arg(long, default_value = "")]
    pub(crate) agent_identifiers: String,
    /// Between two attempts to connect while servers are missing.
    #[arg(long, default_value = "1s", value_parser = go_duration)]
    pub(crate) sync_interval: Duration,
    /// What that grows to while attempts lead nowhere.
    #[arg(long, default_value = "10s", value_parser = go_duration)]
    pub(crate) sync_interval_cap: Duration,
    /// Go on looking for servers when none is missing, but not more often than every 30 s.
    #[arg(long, default_value = "false", value_parser = go_bool, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) sync_forever: bool,
    /// Between two pings, at least 31 s. Upstream's default is an hour, in which a broken connection stays unnoticed.
    #[arg(long, default_value = "35s", value_parser = go_duration)]
    pub(crate) keepalive_time: Duration,
    /// Address for health checks and metrics, every address if empty.
    #[arg(long, default_value = "")]
    pub(crate) health_server_host: String,
    /// Port for health checks and metrics.
    #[arg(long, default_value_t = 8093, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) health_server_port: u16,
    /// Address of the admin server.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) admin_bind_address: String,
    /// Port of the admin server.
    #[arg(long, default_value_t = 8094, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) admin_server_port: u16,
    /// How much is logged: from 5 on what concerns single connections.
    #[arg(short = 'v', long = "v", default_value_t = 4)]
    v: i32,

    #[arg(long, hide = true, default_value = "1s", value_parser = go_duration)]
    probe_interval: Duration,
    #[arg(long, hide = true, default_value_t = 150, value_parser = clap::value_parser!(i32).range(1..))]
    xfr_channel_size: i32,
    #[arg(long, hide = true, default_value = "false", value_parser = go_bool, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    warn_on_channel_limit: bool,
    #[arg(long, hide = true, default_value = "false", value_parser = go_bool, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) count_server_leases: bool,
    #[arg(long, hide = true, default_value = "kube-system")]
    lease_namespace: String,
    #[arg(
        long,
        hide = true,
        alias = "lease-label",
        default_value = "k8s-app=konnectivity-server",
        overrides_with = "lease_label_selector"
    )]
    lease_label_selector: String,
    #[arg(long, hide = true, default_value = "default", value_enum)]
    server_count_source: ServerCountSource,
    #[arg(long, hide = true, default_value = "", value_parser = path)]
    pub(crate) kubeconfig: PathBuf,
    #[arg(long, hide = true, default_value = "")]
    kube_api_content_type: String,
    #[arg(long, hide = true, default_value = "false", value_parser = go_bool, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) enable_profiling: bool,
    #[arg(long, hide = true, default_value = "false", value_parser = go_bool, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) enable_contention_profiling: bool,

    // The logging library's.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    logtostderr: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    alsologtostderr: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    legacy_stderr_threshold_behavior: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    add_dir_header: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    one_output: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    skip_headers: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    skip_log_headers: Option<String>,
    #[arg(long, hide = true)]
    stderrthreshold: Option<String>,
    #[arg(long, hide = true)]
    alsologtostderrthreshold: Option<String>,
    #[arg(long, hide = true)]
    vmodule: Option<String>,
    #[arg(long, hide = true)]
    log_backtrace_at: Option<String>,
    #[arg(long, hide = true)]
    log_dir: Option<String>,
    #[arg(long, hide = true)]
    log_file: Option<String>,
    #[arg(long, hide = true)]
    log_file_max_size: Option<String>,
}

impl Flags {
    pub(crate) fn verbosity(&self) -> i32 {
        self.v
    }

    pub(crate) fn agent_id(&self) -> AgentId {
        if !self.agent_id.is_empty() {
            return AgentId::Given(self.agent_id.clone());
        }
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = name.trim();
        AgentId::Fresh(if name.is_empty() { "walras".to_owned() } else { name.to_owned() })
    }

    /// The list's form is `a,b`; programs that print Go's flags write an empty one as `[]`.
    pub(crate) fn protocols(&self) -> Vec<String> {
        let list = self.alpn_proto.trim_start_matches('[').trim_end_matches(']');
        list.split(',').map(str::trim).filter(|protocol| !protocol.is_empty()).map(str::to_owned).collect()
    }
}

/// A flag as upstream's parser takes it: with underscores or dashes in its name.
pub(crate) fn normalized(arg: &OsStr) -> OsString {
    match arg.to_str().and_then(|text| text.strip_prefix("--")) {
        Some(flag) => {
            let (name, value) =
                flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
            let name = name.replace('_', "-");
            value.map_or_else(|| format!("--{name}"), |value| format!("--{name}={value}")).into()
        }
        None => arg.to_owned(),
    }
}

/// A path; an empty one is none.
#[expect(clippy::unnecessary_wraps, reason = "a parser's form")]
fn path(text: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(text))
}

/// A switch in one of the forms that Go takes.
fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// A span in the form that Go takes: `1h0m0s`, `1.5s`, `100ms`.
fn go_duration(text: &str) -> Result<Duration, String> {
    const WRONG: &str = "expected a duration such as 30s, 1h0m0s or 1.5s";
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanos = 0_u128;
    while !rest.is_empty() {
        let number =
            rest.find(|character: char| !character.is_ascii_digit() && character != '.').ok_or(WRONG)?;
        let (digits, after) = rest.split_at(number);
        let unit = after
            .find(|character: char| character.is_ascii_digit() || character == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let unit_nanos: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(WRONG.to_owned()),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && fraction.is_empty() || whole.len() > 12 || fraction.len() > 9 {
            return Err(WRONG.to_owned());
        }
        let parsed = |digits: &str| if digits.is_empty() { Ok(0) } else { digits.parse::<u128>() };
        let whole = parsed(whole).map_err(|_| WRONG)?;
        let scale = 10_u128.pow(fraction.len() as u32);
        nanos += whole * unit_nanos + parsed(fraction).map_err(|_| WRONG)? * unit_nanos / scale;
        rest = after;
    }
    if text.is_empty() {
        return Err(WRONG.to_owned());
    }
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| "longer than 584 years".to_owned())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::time::Duration;

    use clap::{Args as _, Command, FromArgMatches as _};

    use super::{AgentId, Flags, go_bool, go_duration, normalized};

    fn parsed(args: &[&str]) -> Result<Flags, clap::Error> {
        let command = Flags::augment_args(Command::new("proxy-agent"));
        let args = std::iter::once("proxy-agent").chain(args.iter().copied());
        let matches = command.try_get_matches_from(args.map(|arg| normalized(OsStr::new(arg))))?;
        Flags::from_arg_matches(&matches)
    }

    #[test]
    fn spans_are_go_s() {
        for (text, millis) in [
            ("1h0m0s", 3_600_000),
            ("1.5s", 1_500),
            ("100ms", 100),
            ("0", 0),
            ("0s", 0),
            ("2h45m30.5s", 9_930_500),
            (".5s", 500),
            ("1000000us", 1_000),
        ] {
            assert_eq!(go_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["", "1", "s", "1x", "-1s", "1.2.3s", "1s2", " 1s", "."] {
            assert!(go_duration(wrong).is_err(), "{wrong}");
        }
        assert!(go_bool("yes").is_err());
    }

    /// What Kamaji, the suite and others pass.
    #[test]
    fn the_flags_that_are_in_use_are_understood() {
        let flags = parsed(&[
            "-v=8",
            "--logtostderr=true",
            "--ca-cert=/ca.crt",
            "--proxy-server-host=example.org",
            "--proxy-server-port=8132",
            "--admin-server-port=8133",
            "--health-server-port=8134",
            "--service-account-token-path=/token",
        ]);
        let flags = flags.expect("understood");
        assert_eq!((flags.verbosity(), flags.proxy_server_port), (8, 8132));
        let flags = parsed(&[
            "--admin-bind-address=127.0.0.1",
            "--agent-id=a",
            "--alpn-proto=[]",
            "--count-server-leases=false",
            "--enable-contention-profiling=false",
            "--keepalive-time=1h0m0s",
            "--kube-api-content-type=application/vnd.kubernetes.protobuf",
            "--kubeconfig=",
            "--lease-label=k8s-app=konnectivity-server",
            "--lease-label-selector=k8s-app=konnectivity-server",
            "--lease-namespace=kube-system",
            "--server-count-source=default",
            "--sync-forever=false",
            "--sync-interval=100ms",
            "--warn-on-channel-limit=false",
            "--xfr-channel-size=150",
        ]);
        let flags = flags.expect("understood");
        assert!(matches!(flags.agent_id(), AgentId::Given(name) if name == "a"));
        assert_eq!((flags.protocols().len(), flags.sync_forever), (0, false));
        let flags = parsed(&[
            "--sync_forever",
            "--keepalive-time",
            "30s",
            "--alpn-proto=konnectivity,x",
            "--skip_headers",
        ]);
        let flags = flags.expect("understood");
        assert_eq!((flags.sync_forever, flags.protocols().len()), (true, 2));
        assert_eq!(flags.keepalive_time, Duration::from_secs(30));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for wrong in [
            "--proxy-server-port=0",
            "--xfr-channel-size=0",
            "--server-count-source=min",
            "--sync-interval=fast",
            "--sync-forever=perhaps",
            "--no-such-flag=1",
        ] {
            let error = parsed(&[wrong]).expect_err(wrong).to_string();
            assert!(error.contains(wrong.split('=').next().unwrap_or_default()), "{error}");
        }
    }
}
