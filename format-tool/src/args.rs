//! The command line as given.

use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

const EXIT_CODES: &str = "\
Exit codes:
  0  done, or nothing to do
  1  failed; what had been done was undone
  2  the command line or the configuration is wrong
  3  verify: the machine is not as the configuration says
  4  refused, before anything was done
  5  failed, and not all could be undone; the record knows what is left
  6  formatted, but the agent could not be enrolled";

/// Makes this machine a node: divides it into partitions, each a user, a directory, a tap, addresses.
///
/// First time: `init` writes a configuration, `plan` shows what it would do, `apply` does it, `verify` finds what was
/// changed since, `reset` removes exactly what was made.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub struct Args {
    /// The configuration.
    #[arg(long, global = true, default_value = "/etc/plat/format.toml", value_name = "FILE")]
    pub config: PathBuf,
    /// Take all paths, the configuration's apart, as beneath this directory, and make users in it. Links, addresses and
    /// kernel settings are the running machine's (of this network namespace) all the same.
    #[arg(long, global = true, default_value = "/", value_name = "DIR")]
    pub root: PathBuf,
    /// Take the links that the record says were made in another network namespace of this boot to be gone with it, as when
    /// a container was started anew.
    #[arg(long, global = true)]
    pub links_gone: bool,
    /// Say each thing, not only each kind of thing, however many there are.
    #[arg(short, long, global = true)]
    pub verbose: bool,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Print what apply would do, without doing it.
    Plan {
        #[arg(short, long, value_enum, default_value = "text")]
        output: Form,
        /// What `apply --take-uplink` would do.
        #[arg(long, conflicts_with = "reset")]
        take_uplink: bool,
        /// What `reset` would do.
        #[arg(long)]
        reset: bool,
        /// What `reset --erase` would do.
        #[arg(long, requires = "reset")]
        erase: bool,
    },
    /// Look at this machine and write a configuration that fits it.
    Init {
        /// How many partitions; without, one for each GiB of memory.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10_000))]
        partitions: Option<u32>,
        /// Print it instead of writing the file.
        #[arg(long)]
        stdout: bool,
    },
    /// Do what is missing. If anything fails, undo what was done.
    Apply {
        /// Agree that the addresses and routes of the configured uplink move to the bridge. Unless `node-format confirm`
        /// follows in time (or the agent could be enrolled), they move back.
        #[arg(long)]
        take_uplink: bool,
        /// How long to wait for the confirmation, in seconds.
        #[arg(long, value_name = "SECONDS", default_value = "60", requires = "take_uplink")]
        #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
        confirm_within: u64,
        /// Then enrol the agent with this master, by `plat-agent enroll`: found beside node-format, or on PATH.
        #[arg(long, value_name = "URL", requires = "token_file")]
        master: Option<String>,
        /// The token to enrol with, in a file, or `-` for standard input.
        #[arg(long, value_name = "FILE", requires = "master")]
        token_file: Option<PathBuf>,
    },
    /// Keep the uplink on the bridge: this machine can be reached. Later runs take it without being asked.
    Confirm,
    /// Give the uplink its addresses and routes back, if it has not been confirmed.
    Rollback {
        /// Wait so many seconds for the confirmation first.
        #[arg(long, value_name = "SECONDS", hide = true, requires = "run")]
        after: Option<u64>,
        /// The run that takes it, by its process.
        #[arg(long = "for", value_name = "PID", hide = true)]
        run: Option<u32>,
        /// The record, where the configuration is lost or has an error.
        #[arg(long, value_name = "FILE")]
        record: Option<PathBuf>,
    },
    /// Compare the machine with the configuration; exit code 3 and the difference if they are not the same.
    Verify {
        #[arg(short, long, value_enum, default_value = "text")]
        output: Form,
    },
    /// Remove exactly what node-format made, as its record says.
    Reset {
        /// Remove partitions with all that is in them.
        #[arg(long)]
        erase: bool,
        /// The record, where the configuration is lost or has an error.
        #[arg(long, value_name = "FILE")]
        record: Option<PathBuf>,
    },
    /// Print what the record says was made.
    Show {
        #[arg(short, long, value_enum, default_value = "text")]
        output: Form,
    },
    /// Print a commented configuration.
    Example,
}
