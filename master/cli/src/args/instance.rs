//! What is typed about instances and what they use.

use super::span::{parse as span, point};
use clap::Args;
use plat_model::Timestamp;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plat request shop-db --release postgresql --param max_connections=50 --wait
  plat request shop-db --params shop-db.json        change its parameters, keep all else
  plat request web --release nginx --where zone=north
  plat request blog-db --shared --on shop-db --param database=blog

A value of --param is read as JSON if it is JSON, else as text: port=5432 is a number, name=shop a text.
Leaving out --param and --params keeps the parameters that an instance has.")]
pub struct RequestArgs {
    /// Name of the instance, unique in its project
    pub name: String,
    /// Name of a release (its newest), or a digest. May be left out when changing an instance
    #[arg(long, short)]
    pub release: Option<String>,
    /// One parameter; may be repeated
    #[arg(long = "param", short = 'p', value_name = "KEY=VALUE", conflicts_with = "params")]
    pub param: Vec<String>,
    /// File with all parameters, YAML or JSON; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub params: Option<PathBuf>,
    /// Only this node
    #[arg(long)]
    pub node: Option<String>,
    /// Only nodes with this label; may be repeated
    #[arg(long = "where", value_name = "LABEL=VALUE")]
    pub labels: Vec<String>,
    /// Cores it may use, e.g. 0.5
    #[arg(long)]
    pub cpu: Option<f64>,
    /// Mebibytes of memory it may use
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u32>,
    /// Mebibytes of disk it may use
    #[arg(long, value_name = "MIB")]
    pub disk: Option<u32>,
    /// Processes and threads it may have
    #[arg(long, value_name = "COUNT")]
    pub processes: Option<u32>,
    /// Only nodes that hold it to these: cpu, memory, disk, processes, confinement
    #[arg(long, value_name = "AMOUNT,…", value_delimiter = ',')]
    pub enforced: Vec<String>,
    /// Create it stopped
    #[arg(long)]
    pub stopped: bool,
    /// A place inside another instance, which accepts such, instead of a partition of its own
    #[arg(long, conflicts_with_all = ["node", "labels", "cpu", "memory", "disk", "stopped"])]
    pub shared: bool,
    /// The instance that it is to be in; without it one of the release
    #[arg(long, value_name = "NAME", requires = "shared")]
    pub on: Option<String>,
    /// Say what would happen, change nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Clone, Args)]
pub struct Wait {
    /// Wait until it is so, showing progress
    #[arg(long, short)]
    pub wait: bool,
    /// Give up waiting after this time: seconds, or e.g. 30m, 2h
    #[arg(long, default_value = "15m", value_parser = span, value_name = "TIME")]
    pub timeout: Duration,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Instances of every project that you may see
    #[arg(long, short)]
    pub all: bool,
    /// Print again each time that something changes
    #[arg(long)]
    pub watch: bool,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Name of the instance
    pub name: String,
    /// What its promises have said, and when, instead: as much as its node remembers
    #[arg(long, conflicts_with = "watch")]
    pub promises: bool,
    /// Print again each time that something changes
    #[arg(long)]
    pub watch: bool,
}

#[derive(Debug, Args)]
pub struct WishArgs {
    /// Names of instances
    #[arg(required = true)]
    pub names: Vec<String>,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plat destroy shop-db --yes --wait
  plat destroy shop-db --keep-for 7d     stopped now, destroyed in a week; `plat undestroy shop-db` takes it back")]
pub struct DestroyArgs {
    /// Names of instances
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Keep them, stopped, for this time first: seconds, or e.g. 12h, 7d
    #[arg(long, value_parser = span, value_name = "TIME")]
    pub keep_for: Option<Duration>,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plat logs shop-db                    the last lines of all its services
  plat logs shop-db -s postgres -n 20 -f
  plat logs shop-db --hook configure   what that hook wrote, each time that it ran
  plat logs shop-db -o json            one object a line")]
pub struct LogsArgs {
    /// Name of the instance
    pub name: String,
    /// Only this service
    #[arg(long, short)]
    pub service: Option<String>,
    /// This hook, instead of services
    #[arg(long, conflicts_with = "service")]
    pub hook: Option<String>,
    /// How many of the last lines
    #[arg(long, short = 'n', default_value_t = 100)]
    pub lines: u32,
    /// Go on as more is written
    #[arg(long, short)]
    pub follow: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plat run configure shop-db              its last lines, and its exit code as the command's own
  plat run configure shop-db --no-wait    ask for it; `plat show shop-db` tells what becomes of it
  plat run configure shop-db -o json      number, exit code, times, last lines

Hooks that may be asked for: configure, start. It runs at most once: if the node's agent ends meanwhile it is
`interrupted`, and not run again by itself. `plat logs shop-db --hook configure` shows all that it wrote.")]
pub struct RunArgs {
    /// Name of the hook, as in the release's document
    pub hook: String,
    /// Name of the instance
    pub name: String,
    /// Ask for it, and do not wait for its end
    #[arg(long)]
    pub no_wait: bool,
    /// Give up waiting after this time, which breaks nothing off: seconds, or e.g. 30m, 2h
    #[arg(long, default_value = "15m", value_parser = span, value_name = "TIME")]
    pub timeout: Duration,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// `instance`, or an error code such as P0305
    pub what: String,
    /// Name of the instance
    pub name: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plat usage                          what the project has used
  plat usage shop-db --from 2026-11-01 --until 2026-12-01
  plat usage --all --csv > usage.csv  exact amounts, for a spreadsheet

Amounts in the table are rounded; those of -o json and --csv are exact.")]
pub struct UsageArgs {
    /// Only this instance
    pub instance: Option<String>,
    /// From this time on: a date, or RFC 3339
    #[arg(long, value_parser = point, value_name = "TIME")]
    pub from: Option<Timestamp>,
    /// Until this time: a date, or RFC 3339
    #[arg(long, value_parser = point, value_name = "TIME")]
    pub until: Option<Timestamp>,
    /// Of every project that you may see
    #[arg(long, short)]
    pub all: bool,
    /// As comma-separated values
    #[arg(long)]
    pub csv: bool,
}

#[derive(Debug, Args)]
pub struct StatementArgs {
    /// The month, e.g. 2026-11 [default: this one]
    pub period: Option<String>,
    /// As comma-separated values
    #[arg(long)]
    pub csv: bool,
}
