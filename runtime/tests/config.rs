//! The configuration as an operator meets it: layers, typing errors, secrets, the dump.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that meets an error fails")]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use proptest::prelude::*;
use proto::market::{Ladder, PriceRule};
use runtime::config::{Config, ConfigError, ConfigFlags, Loaded, LogFormat, MARKETS_MAX, Sources, load};
use runtime::nats::layout;

const TOKEN: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

struct Case {
    folder: tempfile::TempDir,
    sources: Sources,
}

impl Case {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), sources: Sources::default() }
    }

    fn file(mut self, text: &str) -> Self {
        let path = self.folder.path().join("walras.toml");
        fs::write(&path, text).unwrap();
        self.sources.file = Some(path);
        self
    }

    fn beside(self, name: &str, text: &str) -> Self {
        fs::write(self.folder.path().join(name), text).unwrap();
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.sources.environment.push((name.into(), value.into()));
        self
    }

    fn flag(mut self, flag: &str, key: &str, value: &str) -> Self {
        self.sources.flags.push((flag.into(), key.into(), value.into()));
        self
    }

    fn load(&self) -> Result<Loaded, ConfigError> {
        load(&self.sources)
    }

    /// The error's one line, with the folder's name cut out.
    fn error(&self) -> String {
        let line = self.load().expect_err("the configuration should be refused").to_string();
        assert!(!line.contains('\n'), "more than one line: {line}");
        line.replace(&format!("{}/", self.folder.path().display()), "")
    }
}

#[test]
fn without_any_source_there_is_a_working_configuration() {
    let loaded = load(&Sources::default()).unwrap();
    let config = &loaded.config;
    assert_eq!(config.journal.database_url.as_ref().unwrap().expose(), "sqlite:walras-data/walras.db");
    assert_eq!(config.runner.archive_dir, Some(PathBuf::from("walras-data/archive")));
    let (name, exchange) = config.market.exchanges.first_key_value().unwrap();
    assert_eq!(name.as_str(), "main");
    assert_eq!(exchange.all_markets().count(), 30, "the built-in catalogue");
    assert!(config.tenants.is_empty());
}

#[test]
fn a_later_layer_wins_and_the_rest_stays() {
    let file = "[gateway]\nburst = 300\nrequests_per_second = 70\nlisten = '127.0.0.1:1'\n";
    let loaded = Case::new()
        .file(file)
        .variable("WALRAS_GATEWAY__BURST", "400")
        .variable("WALRAS_GATEWAY__LISTEN", "127.0.0.1:2")
        .flag("--listen", "gateway.listen", "127.0.0.1:3")
        .load()
        .unwrap();
    let gateway = &loaded.config.gateway;
    assert_eq!((gateway.requests_per_second.get(), gateway.burst.get(), gateway.listen.port()), (70, 400, 3));
    let source = |key: &str| loaded.origin(key).to_string();
    assert!(source("gateway.requests_per_second").ends_with("walras.toml:3"));
    assert_eq!(source("gateway.burst"), "environment WALRAS_GATEWAY__BURST");
    assert_eq!(source("gateway.listen"), "flag --listen");
    assert_eq!(source("gateway.body_bytes_max"), "default");
}

#[test]
fn variables_are_read_as_their_key_wants_them() {
    let loaded = Case::new()
        .variable("WALRAS_DATA_DIR", "2024")
        .variable("WALRAS_BUS__PORT", "4222")
        .variable("WALRAS_DEMO__ENABLED", "false")
        .variable("WALRAS_DEMO__SEED", "18446744073709551615")
        .variable("WALRAS_TELEMETRY__FORMAT", "json")
        .variable("WALRAS_MARKET__EXCHANGES__MAIN__RULES__PRICE_RULE", "highest-rejected")
        .variable("WALRAS_TENANTS", &format!(r#"[{{ id = "t1", token_sha256 = "{TOKEN}" }}]"#))
        .variable("HOME", "/root")
        .load()
        .unwrap();
    let config = loaded.config;
    assert_eq!(config.data_dir, PathBuf::from("2024"));
    assert_eq!(config.bus.port, 4222);
    assert!(!config.demo.enabled);
    assert_eq!(config.demo.seed, u64::MAX);
    assert_eq!(config.telemetry.format, LogFormat::Json);
    assert_eq!(config.market.exchanges.values().next().unwrap().rules.price_rule, PriceRule::HighestRejected);
    assert_eq!(config.tenants[0].id.as_str(), "t1");
    assert_eq!(config.tenants[0].token_sha256.bytes()[0], 0xba);
}

#[test]
fn an_empty_variable_unsets_what_may_be_absent() {
    let case =
        Case::new().file("[bus]\nnats_url = 'nats://broker:4222'\n").variable("WALRAS_BUS__NATS_URL", "");
    assert_eq!(case.load().unwrap().config.bus.nats_url, None);
    let case = Case::new().variable("WALRAS_BUS__PORT", "");
    assert_eq!(case.error(), r#"environment WALRAS_BUS__PORT: bus.port: "" is no whole number"#);
}

#[test]
fn paths_in_a_file_are_relative_to_it() {
    let text =
        "data_dir = 'd'\n[bus]\nseed_file = '/abs/seed'\n[market.exchanges.main]\ncatalogue = 'c.toml'\n";
    let case = Case::new().file(text).beside(
        "c.toml",
        "markets = [{ region = 'r1', class = 'c.x', reserve = '0.5', ladder = { rungs = ['0.5', '1'] } }]",
    );
    let config = case.load().unwrap().config;
    assert_eq!(config.data_dir, case.folder.path().join("d"));
    assert_eq!(config.bus.seed_file.as_deref(), Some(Path::new("/abs/seed")));
    let exchange = config.market.exchanges.values().next().unwrap();
    let market = exchange.all_markets().next().unwrap();
    assert_eq!(market.market().as_str(), "r1/c.x");
    assert!(matches!(&market.settings().ladder, Ladder::Rungs(rungs) if rungs.len() == 2));
    assert_eq!(exchange.all_markets().count(), 1);
}

#[test]
fn wrong_files_are_refused_with_line_key_and_value() {
    let cases = [
        ("[buss]\n", "walras.toml:1: buss: no such key; there are `data_dir`, `bus`, "),
        ("[bus]\n\nnats_ulr = 'x'\n", "walras.toml:3: bus.nats_ulr: no such key; there are `nats_url`, "),
        ("[bus]\nport = 70000\n", "walras.toml:2: bus.port: invalid value: integer `70000`, expected u16"),
        ("[bus]\nport = '4222'\n", "walras.toml:2: bus.port: invalid type: string \"4222\", expected u16"),
        ("[bus\n", "walras.toml:1: "),
        ("a = 1\na = 2\n", "walras.toml:2: duplicate key"),
        ("[gateway]\nburst = 0\n", "walras.toml:2: gateway.burst: "),
        ("[gateway]\nlisten = 'here'\n", "walras.toml:2: gateway.listen: "),
        ("[gateway]\nburst = 10\n", "walras.toml:2: gateway.burst: 10 is less than requests_per_second, 50"),
        (
            "[gateway]\nstranger_burst = 10\n",
            "walras.toml:2: gateway.stranger_burst: 10 is less than stranger_requests_per_second, 200",
        ),
        ("[telemetry]\nformat = 'xml'\n", "walras.toml:2: telemetry.format: `xml` is none of `text`, `json`"),
        ("[telemetry]\nfilter = 'info,=,'\n", "walras.toml:2: telemetry.filter: \"info,=,\" is no filter"),
        (
            "[admin]\nlisten = '0.0.0.0:8700'\n",
            "walras.toml:2: admin.listen: 0.0.0.0:8700 is where the gateway",
        ),
        ("[market.exchanges.'a b']\n", "walras.toml:1: market.exchanges.a b: stream may hold only "),
        (
            "[[market.exchanges.main.markets]]\nregion = 'r'\nclass = 'c'\nreserve = 0.031\n",
            "walras.toml:4: market.exchanges.main.markets[0].reserve: numbers with decimals are written as text",
        ),
        (
            "[[market.exchanges.main.markets]]\nregion = 'r'\nclass = 'c'\nreserve = '1e5'\n",
            "walras.toml:4: market.exchanges.main.markets[0].reserve: a price is digits with at most six decimals",
        ),
        (
            "[[market.exchanges.main.markets]]\nregion = 'r'\nclass = 'c'\n",
            "walras.toml:1: market.exchanges.main.markets[0]: key `reserve` is missing",
        ),
        (
            "[market.exchanges.main]\nmarkets = [{ region = 'r', class = 'c', reserve = '1', ladder = { rungs = ['2', '2'] } }]",
            "walras.toml:2: market.exchanges.main.markets[0].ladder: rungs must ascend, \"2.000\", \"2.000\" do not",
        ),
        (
            "[market.exchanges.main]\nmarkets = [{ region = 'r', class = 'c', reserve = '1', ladder = { step = '0' } }]",
            "walras.toml:2: market.exchanges.main.markets[0].ladder: a step of 0 has no rungs",
        ),
        (
            "[market.exchanges.main]\nmarkets = [{ region = 'r', class = 'c', reserve = '1', notice_seconds = 0 }]",
            "walras.toml:2: market.exchanges.main.markets[0].notice_seconds: 0 is not in 1 … 2592000",
        ),
        (
            "[market.exchanges.one]\n[market.exchanges.two]\n",
            "walras.toml:2: market.exchanges.two.catalogue: market eu-alder-1/gp.small is in exchange one already",
        ),
        ("[market]\nexchanges = {}\n", "walras.toml:2: market.exchanges: 0 exchanges, must be 1 … 64"),
        ("[market.exchanges.main]\ncatalogue = 'none.toml'\n", "none.toml: cannot be read"),
        ("[bus]\nnats_url = 'http://x'\n", "walras.toml:2: bus.nats_url: must be nats://HOST:PORT"),
        ("[bus]\nnats_url = 'nats://x'\nport = 1\n", "walras.toml:3: bus.port: is for a nats-server child"),
        ("[bus]\nreplicas = 3\n", "walras.toml:2: bus.replicas: a nats-server child is one server"),
        ("[bus]\ncommand_bytes_max = 5\n", "walras.toml:2: bus.command_bytes_max: 5 is not in "),
        (
            "[journal]\ndatabase_url = 'mysql://x'\n",
            "walras.toml:2: journal.database_url: must be sqlite:PATH",
        ),
        ("[runner]\nclaim_seconds = 301\n", "walras.toml:2: runner.claim_seconds: 301 is more than 300"),
        ("[[tenants]]\nid = 'a.b'\n", "walras.toml:2: tenants[0].id: tenant may hold only "),
        (
            "[[storefronts]]\nprincipal = 's'\nnkey = 'UABC'\n",
            "walras.toml:3: storefronts[0].nkey: must be the public nkey",
        ),
    ];
    for (text, start) in cases {
        let error = Case::new().file(text).error();
        assert!(error.starts_with(start), "{text}\n gave: {error}\n not:  {start}");
    }
}

#[test]
fn a_variable_that_matches_nothing_is_named() {
    let cases = [
        ("WALRAS_BUS__NATS_ULR", "environment WALRAS_BUS__NATS_ULR: bus.nats_ulr: no such key; there are "),
        ("WALRAS_BUS_NATS_URL", "environment WALRAS_BUS_NATS_URL: bus_nats_url: no such key; there are "),
        ("WALRAS_BSU__PORT", "environment WALRAS_BSU__PORT: bsu: no such key; there are "),
        ("WALRAS_DATA_DIR__X", "environment WALRAS_DATA_DIR__X: data_dir: invalid type"),
        ("WALRAS_", "environment WALRAS_: : no key"),
        ("WALRAS_BUS__", "environment WALRAS_BUS__: bus.: no key"),
    ];
    for (name, start) in cases {
        let error = Case::new().variable(name, "1").error();
        assert!(error.starts_with(start), "{name} gave: {error}");
    }
    let both = Case::new().variable("WALRAS_BUS", "{ port = 1 }").variable("WALRAS_BUS__PORT", "2");
    assert_eq!(
        both.error(),
        "environment WALRAS_BUS__PORT: bus.port: a part of this key is set as a whole too; set one of the two"
    );
}

#[test]
fn what_kubernetes_and_our_own_tools_put_into_the_environment_is_passed_over() {
    let case = Case::new()
        .variable("WALRAS_SERVICE_HOST", "10.0.0.7")
        .variable("WALRAS_GATEWAY_SERVICE_PORT", "80")
        .variable("WALRAS_GATEWAY_SERVICE_PORT_HTTP", "80")
        .variable("WALRAS_GATEWAY_PORT", "tcp://10.0.0.7:80")
        .variable("WALRAS_GATEWAY_PORT_80_TCP", "tcp://10.0.0.7:80")
        .variable("WALRAS_GATEWAY_PORT_80_TCP_PROTO", "tcp")
        .variable("WALRAS_GATEWAY_PORT_80_TCP_PORT", "80")
        .variable("WALRAS_GATEWAY_PORT_80_TCP_ADDR", "10.0.0.7")
        .variable("WALRAS_CONFIG", "x")
        .variable("WALRAS_TOKEN", "x");
    // The one that ends in _ADDR is the last shape there is.
    case.load().unwrap();
    let error = Case::new().variable("WALRAS_BUS_PORT", "4222").error();
    assert!(error.contains("WALRAS_BUS_PORT"), "a typing error is not taken for Kubernetes: {error}");
}

#[cfg(unix)]
#[test]
fn a_value_that_is_no_text_is_named() {
    use std::os::unix::ffi::OsStringExt;
    let mut case = Case::new();
    case.sources.environment.push(("WALRAS_DATA_DIR".into(), OsString::from_vec(vec![0xff])));
    assert_eq!(case.error(), "environment WALRAS_DATA_DIR: data_dir: is no UTF-8");
}

#[test]
fn secrets_are_in_no_error_and_no_dump() {
    let seed = nkeys::KeyPair::new_user().seed().unwrap();
    let storefront = format!("[[storefronts]]\nprincipal = 's'\nnkey = '{seed}'\n");
    let refused = [
        Case::new().file("[journal]\ndatabase_url = 'mysql://u:hunter2@h/d'\n"),
        Case::new().file("[bus]\nnats_url = 'http://hunter2@h'\n"),
        Case::new().file("[journal]\ndatabase_url = 7777777\n"),
        Case::new().file("[journal]\ndatabase_url = ['hunter2']\n"),
        Case::new().file("[journal]\ndatabase_url = 'postgres://u:hunter2@h\n"),
        Case::new().file("[[tenants]]\nid = 't'\ntoken_sha256 = 'hunter2'\n"),
        Case::new().variable("WALRAS_TENANTS", "[{ id = 't', token_sha256 = 'hunter2' "),
        Case::new().variable("WALRAS_JOURNAL__DATABASE_URI", "postgres://u:hunter2@h/d"),
        Case::new().file(&storefront),
    ];
    for case in refused {
        let error = case.error();
        let debug = format!("{:?}", case.load().unwrap_err());
        for secret in ["hunter2", "7777777", seed.as_str()] {
            assert!(!error.contains(secret) && !debug.contains(secret), "{error}\n{debug}");
        }
    }
    let loaded = Case::new()
        .file(&format!("[[tenants]]\nid = 't'\ntoken_sha256 = '{TOKEN}'\n"))
        .variable("WALRAS_JOURNAL__DATABASE_URL", "postgres://u:hunter2@h/d?sslpassword=hunter2")
        .variable("WALRAS_BUS__NATS_URL", "nats://u:hunter2@h:4222")
        .load()
        .unwrap();
    for shown in
        [loaded.dump().unwrap(), format!("{:?}", loaded.config), format!("{:?}", loaded.config.journal)]
    {
        assert!(!shown.contains("hunter2") && !shown.contains(TOKEN), "{shown}");
    }
}

#[test]
fn the_dump_is_toml_with_sources_and_reads_back_as_the_same() {
    let case = Case::new()
        .file("[gateway]\nburst = 300\n[market.exchanges.main]\nmarkets = [{ region = 'r', class = 'c.d', reserve = '0.1', ladder = { step = '0.01' } }]\n[market.exchanges.side.rules]\nprice_rule = 'highest-rejected'\n")
        .variable("WALRAS_BUS__PORT", "4333");
    let loaded = case.load().unwrap();
    let dump = loaded.dump().unwrap();
    for line in [
        "burst = 300  # ",
        "port = 4333  # environment WALRAS_BUS__PORT",
        "# nats_url =  # not set",
        "claim_seconds = 10  # default",
        "[market.exchanges.side.rules]",
    ] {
        assert!(dump.lines().any(|found| found.starts_with(line)), "{line:?} is not in\n{dump}");
    }
    let again = Case::new().file(&dump).load().unwrap();
    let markets = |config: &Config| format!("{:?}", config.market);
    assert_eq!(markets(&again.config), markets(&loaded.config));
    assert_eq!(again.config.gateway, loaded.config.gateway);
    assert_eq!(again.config.runner.claim_seconds, loaded.config.runner.claim_seconds);
}

#[test]
fn parties_are_unique() {
    let key = || nkeys::KeyPair::new_user().public_key();
    let (one, two) = (key(), key());
    let party = |list: &str, name: &str, key: &str, more: &str| {
        format!("[[{list}]]\nprincipal = '{name}'\nnkey = '{key}'\n{more}\n")
    };
    let good = party("storefronts", "s1", &one, "tenants = ['t']") + &party("hypervisors", "h1", &two, "");
    assert_eq!(Case::new().file(&good).load().unwrap().config.hypervisors[0].nkey.as_str(), two);
    let cases = [
        (party("storefronts", "s1", &one, ""), "storefronts[0].tenants: give the tenants it may bid for"),
        (party("storefronts", "s1", &one, "tenants = ['t']\nevery_tenant = true"), "one of the two"),
        (good.clone() + &party("operators", "h1", &key(), ""), "operators[0].principal: h1 is there twice"),
        (
            good.clone() + &party("observers", "o", &one, ""),
            "observers[0].nkey: another party has the same key",
        ),
        (
            format!(
                "[[tenants]]\nid = 'a'\ntoken_sha256 = '{TOKEN}'\n[[tenants]]\nid = 'b'\ntoken_sha256 = '{TOKEN}'\n"
            ),
            "tenants[1].token_sha256: another tenant has the same token",
        ),
    ];
    for (text, part) in cases {
        let error = Case::new().file(&text).error();
        assert!(error.contains(part), "{error} does not say {part}");
    }
}

#[test]
fn streams_are_shaped_as_configured_and_by_default_as_they_are_laid_out() {
    let specs = || {
        [
            layout::command_stream("market", "main"),
            layout::event_stream("market", "main"),
            layout::answer_stream(),
        ]
    };
    let by_default = load(&Sources::default()).unwrap().config.bus;
    for spec in specs() {
        let mut shaped = spec.clone();
        by_default.shape(&mut shaped);
        assert_eq!(shaped, spec);
    }
    let text = "[bus]\nnats_url = 'nats://h:1'\nreplicas = 3\ncommand_bytes_max = 20000000\nevent_bytes_max = 30000000\nevent_days = 2\n";
    let other = Case::new().file(text).load().unwrap().config.bus;
    let [mut commands, mut events, _] = specs();
    other.shape(&mut commands);
    other.shape(&mut events);
    assert_eq!((commands.replicas, commands.max_bytes, commands.max_age), (3, 20_000_000, None));
    assert_eq!((events.max_bytes, events.max_age), (30_000_000, Some(Duration::from_hours(48))));
}

#[test]
fn too_many_markets_are_refused() {
    let markets: Vec<String> = (0..=MARKETS_MAX)
        .map(|index| format!("{{ region = 'r{index}', class = 'c', reserve = '1' }}"))
        .collect();
    let case = Case::new()
        .file("[market.exchanges.main]\ncatalogue = 'c.toml'\n")
        .beside("c.toml", &format!("markets = [{}]", markets.join(",\n")));
    assert_eq!(case.error(), "walras.toml:1: market.exchanges.main.markets: 1025 markets, at most 1024");
}

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    flags: ConfigFlags,
}

#[test]
fn flags_become_the_last_layer() {
    let parse = |words: &[&str]| {
        let words = std::iter::once("walras").chain(words.iter().copied());
        Command::try_parse_from(words).unwrap().flags.sources(std::iter::empty()).and_then(|s| load(&s))
    };
    let loaded = parse(&["--data-dir", "d", "--nats-url=nats://h:1", "--set", "gateway.burst=77"]).unwrap();
    assert_eq!(loaded.config.gateway.burst.get(), 77);
    assert_eq!(loaded.origin("gateway.burst").to_string(), "flag --set gateway.burst");
    assert_eq!(loaded.origin("bus.nats_url").to_string(), "flag --nats-url");
    let error = |words: &[&str]| parse(words).unwrap_err().to_string();
    assert_eq!(error(&["--set", "gateway.burst"]), "flag --set: wants KEY=VALUE");
    assert!(
        error(&["--set", "gateway.bust=1"]).starts_with("flag --set gateway.bust: gateway.bust: no such key")
    );
    assert_eq!(
        error(&["--data-dir", "a", "--set", "data_dir=b"]),
        "flag --set data_dir: data_dir: set twice"
    );
    assert!(error(&["--config", "/nowhere/walras.toml"]).starts_with("/nowhere/walras.toml: cannot be read"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever stands in a file, variable or flag: a configuration, or one line; never a panic.
    #[test]
    fn no_input_panics(
        text in "(\\[?\\[?(bus|market|tenants|gateway|a|\\.|exchanges|main|markets){1,3}\\]?\\]?\n|(port|burst|ladder|a|listen) ?= ?(\"[a-z.:]*\"|[0-9]{1,20}|[0-9.]{1,5}|\\[.{0,4}\\]|\\{.{0,6}\\}|true)\n){0,6}",
        name in "WALRAS_[A-Z_]{0,20}",
        value in ".{0,20}",
    ) {
        for case in [Case::new().file(&text), Case::new().variable(&name, &value), Case::new().flag("--set", &name, &value)] {
            if case.load().is_err() {
                case.error();
            }
        }
    }

    /// A number written in a file, a variable or a flag is the same number, or refused in all three.
    #[test]
    fn layers_agree_on_numbers(number in any::<u32>()) {
        let text = number.to_string();
        let cases = [
            Case::new().file(&format!("[demo]\nservers_per_market = {text}\n")),
            Case::new().variable("WALRAS_DEMO__SERVERS_PER_MARKET", &text),
            Case::new().flag("--set", "demo.servers_per_market", &text),
        ];
        for case in cases {
            prop_assert_eq!(case.load().unwrap().config.demo.servers_per_market, number);
        }
    }
}
