//! What is typed about the grid itself: releases, nodes, tokens, users, prices, the audit log.

use super::Wait;
use super::span::parse as span;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub enum ReleaseCommand {
    /// Add a release document, with all that it extends
    Add {
        /// The document, YAML
        file: PathBuf,
        /// Another name than the one in the document
        #[arg(long)]
        name: Option<String>,
    },
    /// List releases
    List,
    /// Show one release, and where it is installed
    Show {
        /// Name (its newest), or digest
        release: String,
        /// Print the document itself
        #[arg(long)]
        document: bool,
    },
    /// Build a release again: at once where that failed, anew where no instance uses it
    #[command(after_help = "Examples:
  plat release rebuild postgresql                         on every node that it is to be on
  plat release rebuild postgresql --node edge-7 --wait    on this one, until it is built or has failed

A build that failed is tried again by itself, later and later; this does it at once. One that is there is removed and
built again only where no instance uses it. Nodes that do neither say why.")]
    Rebuild {
        /// Name (its newest), or digest
        release: String,
        /// Only this node; may be repeated
        #[arg(long)]
        node: Vec<String>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Print how a node built a release, also while it does
    #[command(after_help = "Examples:
  plat release log postgresql --node edge-7       the last lines of what its build wrote
  plat release log postgresql --node edge-7 -f    on, to the end of the build (an hour at most)
  plat release log 3f2a90c1d4e5 --node edge-7 -n 10000 -o json    one object a line

A node keeps the last 2 MiB of what builds of a release wrote, also of one that failed.
`plat release show` tells where it is being built.")]
    Log {
        /// Name (its newest), or digest
        release: String,
        /// The node that builds it, or has
        #[arg(long)]
        node: String,
        /// How many of the last lines
        #[arg(long, short = 'n', default_value_t = 100)]
        lines: u32,
        /// Go on as more is written, until the build has ended
        #[arg(long, short)]
        follow: bool,
    },
    /// Check a release document here, without a grid
    Check {
        /// The document, YAML
        file: PathBuf,
        /// Say who set this value and who was overruled, e.g. services.web.command
        #[arg(long, value_name = "PATH")]
        explain: Option<String>,
    },
    /// Write down exactly what packages the release names are on this kind of machine
    ///
    /// Debian packages are named by name; which versions that is depends on the day. This asks the package sources of this
    /// machine and writes FILE.lock.yaml beside the document, which extends it and says each package's address and digest.
    /// Add that file instead: what is built of it is made of the same bytes later. What is locked already stays as it is.
    #[command(after_help = "Example:
  plat release lock redis.yaml && plat release add redis.lock.yaml")]
    Lock {
        /// The document, YAML
        file: PathBuf,
        /// Lock what is locked already anew: take what the package sources have now
        #[arg(long)]
        update: bool,
    },
    /// Print the JSON Schema of release documents, for editors
    Schema,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plat supply postgresql --all              onto every node, those to come included
  plat supply postgresql --node edge-7 --node edge-8 --wait
  plat supply postgresql --node edge-7 --remove")]
pub struct SupplyArgs {
    /// Name (its newest), or digest
    pub release: String,
    /// Onto this node; may be repeated
    #[arg(long, required_unless_present = "all", conflicts_with = "all")]
    pub node: Vec<String>,
    /// Onto every node, those to come included
    #[arg(long)]
    pub all: bool,
    /// Remove it instead
    #[arg(long)]
    pub remove: bool,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List nodes
    List {
        /// Print again each time that something changes
        #[arg(long)]
        watch: bool,
    },
    /// Show one node: partitions, releases
    Show {
        /// Name of the node
        node: String,
        /// Print again each time that something changes
        #[arg(long)]
        watch: bool,
    },
    /// Set or remove labels
    #[command(after_help = "Example:\n  plat node label edge-7 zone=north disk-")]
    Label {
        /// Name of the node
        node: String,
        /// KEY=VALUE sets, KEY- removes
        #[arg(required = true)]
        labels: Vec<String>,
    },
    /// Shut a node out, at once and for good; it may enrol anew with a new token
    Revoke {
        /// Name of the node
        node: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token: for a node, or with --user for a person. It is shown once and good once
    #[command(after_help = "Examples:
  plat token create                      for one node, which chooses its name
  plat token create --node edge-7 --out edge-7.token
  plat token create --user ada --member shop    for a person: `plat login` takes it")]
    Create {
        /// The node's name
        #[arg(long, conflicts_with = "user")]
        node: Option<String>,
        /// The person's or program's name
        #[arg(long)]
        user: Option<String>,
        /// A member of this project
        #[arg(long, requires = "user", conflicts_with_all = ["operator", "billing"], value_name = "PROJECT")]
        member: Option<String>,
        /// An operator
        #[arg(long, requires = "user", conflicts_with = "billing")]
        operator: bool,
        /// A reader of usage and statements
        #[arg(long, requires = "user")]
        billing: bool,
        /// How long it is good: seconds, or e.g. 30m, 24h, 7d; at most 30d
        #[arg(long, default_value = "1h", value_parser = span, value_name = "TIME")]
        valid: Duration,
        /// Write it to this file, readable by you alone, instead of printing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List tokens; their secrets are not kept
    List,
    /// Make a token worthless
    Revoke {
        /// The token's id, as `plat token list` shows it
        id: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  plat token create --user ada --member shop --out ada.token    lets somebody in
  plat user list
  plat user revoke ada                                          shuts somebody out")]
pub enum UserCommand {
    /// List users
    List,
    /// Shut a user out at once
    Revoke {
        /// Name of the user
        user: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum RatesCommand {
    /// Show the prices that hold now
    Show,
    /// Set prices from a file
    #[command(after_help = "The file (YAML or JSON):
  currency: EUR
  from: 2026-12-01T00:00:00Z
  rates:
    - {meter: cpu-micros, unit: core-hour, per: 3600000000, price: \"0.02\"}")]
    Set {
        /// The file; `-` is standard input
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plat audit                    the newest 50 entries, the newest last
  plat audit -n 10 --user ada
  plat audit --after 1200 -o json    all since entry 1200")]
pub struct AuditArgs {
    /// Only entries after this number; all of them unless -n says how many
    #[arg(long, value_name = "NUMBER")]
    pub after: Option<u64>,
    /// How many of the newest [default: 50]
    #[arg(long, short = 'n', value_name = "COUNT")]
    pub lines: Option<usize>,
    /// Only what this user did
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plat ledger > ledger.csv                    all that was booked, a line for each meter
  plat ledger --node edge-7 --after 120       what came after an earlier export
  plat ledger -o json                         the same, an object a line")]
pub struct LedgerArgs {
    /// Only what this node reported
    #[arg(long)]
    pub node: Option<String>,
    /// Only entries after this number of the node
    #[arg(long, requires = "node", default_value_t = 0, value_name = "NUMBER")]
    pub after: u64,
}
