//! The command line: one binary for operators, tenants and services.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use market::billing::Month;
use proto::market::BidOption;
use proto::placement::KubernetesVersion;
use proto::webhook::FactKind;
use proto::{
    BidId, ClusterId, CommandId, DataStoreId, MarketId, PoolId, Price, RegionName, StreamName, TenantId,
    Timestamp, WebhookId,
};
use runtime::config::ConfigFlags;

use crate::client::Connection;

/// The open spot market and capacity scheduler for hosted Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "walras", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole system on this machine.
    Up(UpArgs),
    /// Run the market service.
    Market(ServiceArgs),
    /// Run the placement service.
    Placement(ServiceArgs),
    /// Run the control-plane service: planes as placement orders them, in Kubernetes.
    Controlplane(ServiceArgs),
    /// Run the gateway: HTTP API and web console.
    Gateway(ServiceArgs),
    /// Place a bid.
    Bid(BidArgs),
    /// Order servers on demand: never outbid, at the market's on-demand price.
    Order(OrderArgs),
    /// Replace a bid's terms.
    Amend(AmendArgs),
    /// End a bid.
    Cancel(CancelArgs),
    /// Say that leaving servers are drained, so that they are released now.
    Acknowledge(AcknowledgeArgs),
    /// List your bids, or show one.
    Bids(BidsArgs),
    /// Say why a bid holds what it holds, and what would change it.
    Why(WhyArgs),
    /// List your leases, or show one with what it cost.
    Leases(LeasesArgs),
    /// Show your bill for a month.
    Bill(BillArgs),
    /// Clusters: hosted control planes for your workers.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Be told over HTTP what happens to your bids.
    #[command(subcommand)]
    Webhook(WebhookCommand),
    /// List your units that have to leave.
    Notices(ReadArgs),
    /// Show today's prices, or one market's history.
    Prices(PricesArgs),
    /// Say what a bid must offer to win so many servers now.
    Quote(QuoteArgs),
    /// Follow prices and what happens to your bids.
    Watch(WatchArgs),
    /// Clear a book from a file.
    Clear(FileArgs),
    /// Pack planes onto hosts from a file.
    Pack(FileArgs),
    /// Print the JSON Schemas and the AsyncAPI document, or write them into a folder.
    Schema(SchemaArgs),
    /// Read a journal back and check it.
    Replay(ReplayArgs),
    /// Run the market in virtual time.
    #[command(subcommand)]
    Simulate(SimulateCommand),
    /// Print who may do what at the broker, as `accounts.conf` for a nats-server of your own.
    #[command(name = "nats-accounts")]
    NatsAccounts(ServiceArgs),
    /// Make a key for somebody on the bus: the seed into a file, the public half to print.
    #[command(name = "nats-key")]
    NatsKey(KeyArgs),
    /// Start a broker that ends with its parent.
    #[command(name = "__nats-server", hide = true, disable_help_flag = true)]
    NatsServer {
        /// What the guard and the broker are told.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
}

/// How the whole system runs.
#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    /// No simulated outside world.
    #[arg(long)]
    pub no_demo: bool,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigFlags,
}

/// How one service runs.
#[derive(Clone, Debug, Args)]
pub struct ServiceArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigFlags,
}

/// Where a new key goes.
#[derive(Clone, Debug, Args)]
pub struct KeyArgs {
    /// The file for the seed; it must not be there yet.
    pub file: PathBuf,
    /// Make the key of an issuer, who lets workers into the bus, instead of a user's.
    #[arg(long)]
    pub issuer: bool,
}

/// A bid's terms.
#[derive(Clone, Debug, Args)]
pub struct TermsArgs {
    /// How many servers.
    #[arg(long, default_value_t = 1)]
    pub quantity: u32,
    /// Fewer than this are worth nothing.
    #[arg(long)]
    pub min_quantity: Option<u32>,
    /// Where, at which limit in dollars per hour: `dfw/gp.large=0.030`; may be repeated.
    #[arg(long = "option", value_name = "MARKET=LIMIT", required = true, value_parser = crate::client::option)]
    pub options: Vec<BidOption>,
    /// When the bid ends by itself, as RFC 3339.
    #[arg(long)]
    pub expires_at: Option<Timestamp>,
}

/// A new bid.
#[derive(Clone, Debug, Args)]
pub struct BidArgs {
    /// The bid's id; made up where it is missing.
    #[arg(long)]
    pub id: Option<CommandId>,
    /// The cluster that the servers are for.
    #[arg(long, default_value = "default")]
    pub cluster: ClusterId,
    /// The pool within the cluster.
    #[arg(long, default_value = "default")]
    pub pool: PoolId,
    /// What is wanted.
    #[command(flatten)]
    pub terms: TermsArgs,
    /// Where the gateway is and who asks.
    #[command(flatten)]
    pub connection: Connection,
}

/// New terms for a bid.
#[derive(Clone, Debug, Args)]
pub struct AmendArgs {
    /// Which bid.
    pub bid: BidId,
    /// The version to amend; the present one where it is missing.
    #[arg(long)]
    pub version: Option<u32>,
    /// Leases to give up first; may be repeated.
    #[arg(long = "give-up", value_name = "LEASE")]
    pub give_up: Vec<u64>,
    /// What is wanted.
    #[command(flatten)]
    pub terms: TermsArgs,
    /// Where the gateway is and who asks.
    #[command(flatten)]
    pub connection: Connection,
}

/// A bid to end.
#[derive(Clone, Debug, Args)]
pub struct CancelArgs {
    /// Which bid.
    pub bid: BidId,
    /// Where the gateway is and who asks.
    #[command(flatten)]
    pub connection: Connection,
}

/// Leases that are drained.
#[derive(Clone, Debug, Args)]
pub struct AcknowledgeArgs {
    /// Which bid.
    pub bid: BidId,
    /// The leases.
    #[arg(required = true)]
    pub leases: Vec<u64>,
    /// Where the gateway is and who asks.
    #[command(flatten)]
    pub connection: Connection,
}

/// Which bids to show.
#[derive(Clone, Debug, Args)]
pub struct BidsArgs {
    /// Only this one.
    pub bid: Option<BidId>,
    /// Where the gateway is and who asks.
    #[command(flatten)]
    pub connection: Connection,
}

/// Which leases to show.
#[derive(Clone, Debug, Args)]
pub struct LeasesArgs {
    /// Only this one, segment by segment.
    pub lease: Option<u64>,
    /// Where the gateway is and who asks.
    #[command(flatten)]
    pub connection: Connection,
}

/// Which bill to show.
#[derive(Clone, Debug, Args)]
pub struct BillArgs {
    /// The month, such as 2026-11.
    #[arg(long)]
    pub month: Month,
    /// Whose bill it has to be; the token decides whose it is.
    #[arg(long)]
    pub tenant: Option<TenantId>,
    /// What the lines are made of instead of the lines.
    #[arg(long)]
    pub segments: bool,
    /// Comma-separated values.
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// Where the gateway is and who asks.
    #[command(flatten)]
    pub connection: Connection,
}

/// What may be done with clusters.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Ask for a cluster.
    Create(CreateClusterArgs),
    /// List your clusters.
    List(ReadArgs),
    /// Give a cluster another version of Kubernetes: one minor version at a time.
    Upgrade(UpgradeClusterArgs),
    /// Print the administrator's kubeconfig of a cluster.
    Kubeconfig(NamedClusterArgs),
    /// Wake a cluster that sleeps.
    Wake(NamedClusterArgs),
    /// Give a cluster up, with everything in it.
    Delete(NamedClusterArgs),
}

/// A new cluster.
#[derive(Clone, Debug, Args)]
pub struct CreateClusterArgs {
    /// Its name.
    pub cluster: ClusterId,
    /// The request's id; made up where it is missing.
    #[arg(long)]
    pub id: Option<CommandId>,
    /// The version of Kubernetes, such as v1.35.0.
    #[arg(long)]
    pub version: KubernetesVersion,
    /// A region of its workers; may be repeated.
    #[arg(long = "region", value_name = "REGION", required = true)]
    pub regions: Vec<RegionName>,
    /// One replica of its control plane instead of several.
    #[arg(long)]
    pub single: bool,
    /// Where its data are kept; chosen where it is missing.
    #[arg(long)]
    pub data_store: Option<DataStoreId>,
    /// After so many seconds without workers and bids it sleeps.
    #[arg(long)]
    pub sleep_after_seconds: Option<u32>,
    /// At which site; the first one where it is missing.
    #[arg(long)]
    pub site: Option<StreamName>,
    /// Where the gateway is and who asks.
    #[command(flatten)]
    pub connection: Connection,
}

/// Another version for a cluster.
#[derive(Clone, Debug, Args)]
pub struct UpgradeClusterArgs {
    /// Which cluster.
    pub cluster: ClusterId,
    /// The version, such as v1.36.0.
    pub version: KubernetesVersion,
    /// Where the gateway is and who asks.
    #[command(flatten)]
    pub connection: Connection,
}

/// Which cluster.
#[derive(Clone, Debug, Args)]
pub struct NamedClusterArgs {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Where the gateway is and who asks.
    #[command(flatten)]
    pub connection: Connection,
}

/// A reading command without further choice.
#[derive(Clone, Debug, Args)]
pub struct ReadArgs {
    /// Where the gateway is and who asks.
    #[command(flatten)]
    pub connection: Connection,
}

/// An on-demand order.
#[derive(Clone, Debug, Args)]
pub struct OrderArgs {
    /// The order's id; made up where it is missing.
    #[arg(long)]
    pub id: Option<CommandId>,
    /// The cluster that the servers are for.
    #[arg(long, default_value = "default")]
    pub cluster: ClusterId,
    /// The pool within the cluster.
    #[arg(long, default_value = "default")]
    pub pool: PoolId,
    /// How many servers.
    #[arg(long, default_value_t = 1)]
    pub quantity: u32,
    /// Where: `dfw/gp.large`.
    #[arg(long)]
    pub market: MarketId,
    /// The most a server may cost per hour in dollars, should the price rise; the price of now where it is missing.
    #[arg(long)]
    pub limit: Option<Price>,
    /// When the order ends by itself, as RFC 3339.
    #[arg(long)]
    pub expires_at: Option<Timestamp>,
    /// Where the gateway is and who asks.
    #[command(flatten)]
    pub connection: Connection,
}

/// What is asked about webhooks.
#[derive(Clone, Debug, Subcommand)]
pub enum WebhookCommand {
    /// Be told at an address; a webhook of the same name is replaced.
    Set(SetWebhookArgs),
    /// List your webhooks.
    List(ReadArgs),
    /// Be told no more.
    Remove(NamedWebhookArgs),
    /// Show what deliveries are signed with.
    Secret(NamedWebhookArgs),
    /// List what is still to be told, and what was given up.
    Deliveries(ReadArgs),
    /// Try a delivery now that waits or was given up.
    Again(AgainArgs),
}

/// Where to be told.
#[derive(Clone, Debug, Args)]
pub struct SetWebhookArgs {
    /// The webhook's name.
    pub webhook: WebhookId,
    /// Where to: an `https` or `http` address.
    #[arg(long, value_name = "URL")]
    pub to: String,
    /// A kind of facts: won, notice, withdrawn, delayed, ready, dead, lost, released, expired; may be repeated; all where none is named.
    #[arg(long = "kind", value_parser = crate::client::fact_kind)]
    pub kinds: Vec<FactKind>,
    /// Each lease by itself, with the keys that readers of another spot service's webhook know.
    #[arg(long)]
    pub legacy: bool,
    /// Where the gateway is and who asks.
    #[command(flatten)]
    pub connection: Connection,
}

/// Which webhook.
#[derive(Clone, Debug, Args)]
pub struct NamedWebhookArgs {
    /// The webhook's name.
    pub webhook: WebhookId,
    /// Where the gateway is and who asks.
    #[command(flatten)]
    pub connection: Connection,
}

/// Which delivery.
#[derive(Clone, Debug, Args)]
pub struct AgainArgs {
    /// The delivery's number.
    pub delivery: u64,
    /// Where the gateway is and who asks.
    #[command(flatten)]
    pub connection: Connection,
}

/// Which bid is to be explained.
#[derive(Clone, Debug, Args)]
pub struct WhyArgs {
    /// The bid's id.
    pub bid: BidId,
    /// Where the gateway is and who asks.
    #[command(flatten)]
    pub connection: Connection,
}

/// What a quote is for.
#[derive(Clone, Debug, Args)]
pub struct QuoteArgs {
    /// How many servers, all of which are to win.
    #[arg(long, default_value_t = 1)]
    pub units: u32,
    /// A market that would do: `dfw/gp.large`; may be repeated.
    #[arg(long = "option", value_name = "MARKET", required = true)]
    pub options: Vec<MarketId>,
    /// Where the gateway is and who asks.
    #[command(flatten)]
    pub connection: Connection,
}

/// Which prices to show.
#[derive(Clone, Debug, Args)]
pub struct PricesArgs {
    /// The history of this market.
    pub market: Option<MarketId>,
    /// Where the gateway is and who asks.
    #[command(flatten)]
    pub connection: Connection,
}

/// How long to follow.
#[derive(Clone, Debug, Args)]
pub struct WatchArgs {
    /// Stop after so many events.
    #[arg(long)]
    pub events: Option<u64>,
    /// Where the gateway is and who asks.
    #[command(flatten)]
    pub connection: Connection,
}

/// A file to work on.
#[derive(Clone, Debug, Args)]
pub struct FileArgs {
    /// The file; `-` is standard input.
    pub file: PathBuf,
}

/// Where the schemas go.
#[derive(Clone, Debug, Args)]
pub struct SchemaArgs {
    /// Write the documents here instead of printing their names.
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

/// Which journal to read back.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// Decide everything again and compare.
    #[arg(long)]
    pub audit: bool,
    /// Which exchange; every one where it is missing.
    #[arg(long)]
    pub exchange: Option<proto::StreamName>,
    /// Print JSON, for programs.
    #[arg(long)]
    pub json: bool,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigFlags,
}

/// Simulations.
#[derive(Debug, Subcommand)]
pub enum SimulateCommand {
    /// Run seeds with faults and check every invariant.
    Swarm(SwarmArgs),
    /// Say what a bid would have won and cost since an instant, from the journal.
    Counterfactual(Box<CounterfactualArgs>),
}

/// Which bid, since when.
#[derive(Clone, Debug, Args)]
pub struct CounterfactualArgs {
    /// Since when, as RFC 3339.
    #[arg(long)]
    pub since: Timestamp,
    /// Until when; the journal's end where it is missing.
    #[arg(long)]
    pub until: Option<Timestamp>,
    /// Which exchange; the first one where it is missing.
    #[arg(long)]
    pub exchange: Option<StreamName>,
    /// An on-demand order, not a bid.
    #[arg(long)]
    pub on_demand: bool,
    /// What would have been wanted.
    #[command(flatten)]
    pub terms: TermsArgs,
    /// Print JSON, for programs.
    #[arg(long)]
    pub json: bool,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigFlags,
}

/// Which seeds to run.
#[derive(Clone, Debug, Args)]
pub struct SwarmArgs {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 50)]
    pub seeds: u64,
    /// Virtual seconds of each.
    #[arg(long, default_value_t = 3_600)]
    pub seconds: u32,
    /// Print JSON, for programs.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Two arguments of one name, say, are found only when the subcommand is used.
    #[test]
    fn every_command_can_be_read() {
        Cli::command().debug_assert();
        let console = include_str!("../../README.md").lines().filter_map(|line| line.strip_prefix("$ "));
        let documented = console.filter(|line| line.starts_with("walras "));
        for arguments in [
            "walras amend first --version 1 --quantity 2 --option eu-alder-1/gp.large=0.045",
            "walras bid --id first --quantity 2 --option eu-alder-1/gp.large=0.030:0.050",
            "walras acknowledge first 1 2",
            "walras cluster create prod --version v1.35.0 --region eu-alder-1 --single --sleep-after-seconds 3600",
            "walras cluster upgrade prod v1.36.0",
            "walras order --quantity 2 --market eu-alder-1/gp.large",
            "walras why first",
            "walras simulate counterfactual --since 2026-11-01T00:00:00Z --quantity 4 --option dfw/gp.large=0.030",
            "walras webhook set ops --to https://example.org/hook --kind notice --kind lost --legacy",
            "walras webhook again 7",
            "walras quote --units 4 --option eu-alder-1/gp.large --option iad/gp.large",
            "walras nats-accounts --config walras.toml",
            "walras replay --audit --json",
        ]
        .into_iter()
        .chain(documented)
        {
            Cli::try_parse_from(arguments.split(' ')).unwrap_or_else(|error| panic!("{arguments}: {error}"));
        }
    }
}
