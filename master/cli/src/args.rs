//! The command line as it was typed. No disk and no network here.

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;

/// Use and run a grid: request software, watch it come up, connect to it, see what it used.
#[derive(Debug, Parser)]
#[command(
    name = "plat",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "Examples:
  plat dev                                      a whole grid on this machine, to try things out
  plat release add postgresql.yaml              make a release known to the grid
  plat supply postgresql --all                  have every node install it
  plat request shop-db --release postgresql --wait   get a database and wait until it answers
  plat show shop-db                             its state and its connection parameters
  plat explain instance shop-db                 why it is where it is, or why it waits

Exit codes: 0 done, 1 failed, 2 not understood, 3 not found, 4 refused, 5 in conflict,
6 timed out, 7 the master cannot be reached. `plat explain P0301` tells about an error code."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Folder with the credentials to use [default: $PLAT_PROFILE, else ~/.config/plat/default]
    #[arg(long, global = true, env = "PLAT_PROFILE", hide_env = true, value_name = "DIR")]
    pub profile: Option<PathBuf>,
    /// The project that names are looked up in [default: a member's own, else `default`]
    #[arg(long, global = true, value_name = "PROJECT")]
    pub project: Option<String>,
    /// How results are printed
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    pub output: Output,
    /// No colours and no moving progress
    #[arg(long, global = true)]
    pub plain: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Wide,
    Json,
    Yaml,
    /// Names alone, one a line
    Name,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Request an instance: create it, or change it. The same request twice is one instance
    Request(RequestArgs),
    /// List instances
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show one instance: state, promises, connection parameters
    Show(ShowArgs),
    /// Start stopped instances
    Start(WishArgs),
    /// Stop instances; their data stays
    Stop(WishArgs),
    /// Destroy instances and all their data
    Destroy(DestroyArgs),
    /// Print what the services of an instance wrote
    Logs(LogsArgs),
    /// Say why: an instance, or an error code
    #[command(after_help = "Examples:\n  plat explain instance shop-db\n  plat explain P0305")]
    Explain(ExplainArgs),
    /// What was used
    Usage(UsageArgs),
    /// What it costs, for a project and a month
    Statement(StatementArgs),
    /// Releases: what can be requested
    #[command(subcommand)]
    Release(ReleaseCommand),
    /// Make a release available on nodes, or remove it from them
    Supply(SupplyArgs),
    /// Nodes: where instances run
    #[command(subcommand)]
    Node(NodeCommand),
    /// Tokens: how nodes and people join
    #[command(subcommand)]
    Token(TokenCommand),
    /// People and programs with credentials
    #[command(subcommand)]
    User(UserCommand),
    /// Prices
    #[command(subcommand)]
    Rates(RatesCommand),
    /// Who did what, when, from where
    Audit(AuditArgs),
    /// Exchange a user token for credentials
    Login(LoginArgs),
    /// Who this profile is
    Whoami,
    /// A whole grid on this machine, from nothing, in a folder of its own
    Dev(DevArgs),
    /// Print the completions of a shell
    #[command(after_help = "Example:\n  plat completions bash > ~/.local/share/bash-completion/completions/plat")]
    Completions { shell: Shell },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plat request shop-db --release postgresql --param max_connections=50 --wait
  plat request shop-db --params shop-db.json        change its parameters, keep all else
  plat request web --release nginx --where zone=north

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
    /// Create it stopped
    #[arg(long)]
    pub stopped: bool,
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
    /// Give up waiting after this many seconds
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    pub timeout: u64,
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
    pub name: String,
    /// Print again each time that something changes
    #[arg(long)]
    pub watch: bool,
}

#[derive(Debug, Args)]
pub struct WishArgs {
    #[arg(required = true)]
    pub names: Vec<String>,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
pub struct DestroyArgs {
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    pub name: String,
    /// Only this service
    #[arg(long, short)]
    pub service: Option<String>,
    /// How many of the last lines
    #[arg(long, short = 'n', default_value_t = 100)]
    pub lines: u32,
    /// Go on as more is written
    #[arg(long, short)]
    pub follow: bool,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// `instance`, or an error code such as P0305
    pub what: String,
    /// Name of the instance
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub struct UsageArgs {
    /// Only this instance
    pub instance: Option<String>,
    /// From this time on (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Until this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
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

#[derive(Debug, Subcommand)]
pub enum ReleaseCommand {
    /// Add a release document, with all that it extends
    Add {
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
    /// Check a release document here, without a grid
    Check {
        file: PathBuf,
        /// Say who set this value and who was overruled, e.g. services.web.command
        #[arg(long, value_name = "PATH")]
        explain: Option<String>,
    },
    /// Print the JSON Schema of release documents, for editors
    Schema,
}

#[derive(Debug, Args)]
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
        node: String,
        /// Print again each time that something changes
        #[arg(long)]
        watch: bool,
    },
    /// Set or remove labels
    #[command(after_help = "Example:\n  plat node label edge-7 zone=north disk-")]
    Label {
        node: String,
        /// KEY=VALUE sets, KEY- removes
        #[arg(required = true)]
        labels: Vec<String>,
    },
    /// Shut a node out, at once and for good; it may enrol anew with a new token
    Revoke {
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
        /// How many seconds it is good for
        #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
        valid: u32,
        /// Write it to this file, readable by you alone, instead of printing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List tokens; their secrets are not kept
    List,
    /// Make a token worthless
    Revoke { id: String },
}

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// List users
    List,
    /// Shut a user out at once
    Revoke { user: String },
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
    Set { file: PathBuf },
}

#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Entries after this number
    #[arg(long, default_value_t = 0)]
    pub after: u64,
}

#[derive(Debug, Args)]
pub struct LoginArgs {
    /// Where the master is, e.g. https://grid.example.org:7400
    #[arg(long, value_name = "URL")]
    pub master: String,
    /// File that holds the token; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub token_file: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plat dev                 a grid that stays up; use it from another terminal
  plat dev --demo          deploy PostgreSQL on it, ask it something, print usage, clean up
  sudo plat dev --format   with users and addresses of their own for the partitions")]
pub struct DevArgs {
    /// Deploy real software, use it, print status, usage and a statement, clean up
    #[arg(long)]
    pub demo: bool,
    /// Which example the demo deploys
    #[arg(long, default_value = "postgresql", value_name = "RELEASE")]
    pub release: String,
    /// The folder that everything is in, which only you may write in [default: a new one that it removes]
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// How many partitions the node has
    #[arg(long, default_value_t = 4)]
    pub partitions: u32,
    /// Format this host as root: make users, a bridge, taps and addresses for the partitions
    #[arg(long)]
    pub format: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does() {
        fn walk(command: &clap::Command) {
            for sub in command.get_subcommands() {
                assert!(sub.get_about().is_some(), "{} has no help", sub.get_name());
                walk(sub);
            }
        }
        walk(&Cli::command());
    }
}
