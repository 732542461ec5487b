//! The command line as it was typed. No disk and no network here.

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;

mod instance;
mod operator;
pub mod span;

pub use instance::*;
pub use operator::*;

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
#[command(next_help_heading = "Global options")]
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
    /// Keep instances after all that are still kept before they are destroyed
    Undestroy(WishArgs),
    /// Run one of an instance's hooks, once, and end with its exit code
    Run(RunArgs),
    /// Print what the services of an instance wrote, or one of its hooks
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
    /// The ledger itself: what nodes reported, as it was booked
    Ledger(LedgerArgs),
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
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Write the manual pages, one for each command
    #[command(hide = true)]
    Man {
        /// The folder to write them to
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plat login --master https://grid.example.org:7443 --token-file ada.token
  plat --profile ~/.config/plat/work login --master https://grid.example.org:7443 --token-file ada.token
  plat login --again --token-file ada.token        new credentials for the profile that there is

Credentials are good for 30 days, and commands renew them after half of that.")]
pub struct LoginArgs {
    /// Where the master is, e.g. https://grid.example.org:7443
    #[arg(long, value_name = "URL", required_unless_present = "again")]
    pub master: Option<String>,
    /// Give the profile that there is new credentials of the same user and grid
    #[arg(long)]
    pub again: bool,
    /// File that holds the token; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub token_file: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plat dev                 a grid that stays up; use it from another terminal
  plat dev --folder ~/plat-dev   the same, kept: instances, data and credentials are there the next time
  plat dev --demo          deploy PostgreSQL on it, ask it something, print usage, clean up
  sudo plat dev --format   with users and addresses of their own for the partitions")]
pub struct DevArgs {
    /// Deploy real software, use it, print status, usage and a statement, clean up
    #[arg(long)]
    pub demo: bool,
    /// Which example the demo deploys
    #[arg(long, default_value = "postgresql", value_name = "RELEASE")]
    pub release: String,
    /// Keep everything in this folder, to go on there the next time [default: a new one, removed at the end]
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
    fn every_argument_says_what_it_is() {
        fn walk(command: &clap::Command) {
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {} has no help", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
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
