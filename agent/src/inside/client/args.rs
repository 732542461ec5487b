//! What is typed after `plat-instance`.

use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Speak with the agent of this node, from inside an instance
#[derive(Debug, Parser)]
#[command(
    name = "plat-instance",
    version,
    after_help = "Examples, in a hook or a service of a release:
  port=$(plat-instance get port)
  url=$(plat-instance request db --release postgresql --wait --get url)
  plat-instance publish url=http://[fd00::1]:8080/ admin=root
  plat-instance status error 'no licence for more than 10 users'

Nothing has to be configured: PLAT_SOCKET says where the agent listens, and who speaks is known by the Unix user.
Exit codes: 0 done; 1 refused, with the reason on standard error; 2 wrong usage; 3 what is asked for is not there yet."
)]
pub struct Args {
    /// The socket, instead of the one in PLAT_SOCKET
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// How answers are printed
    #[arg(short, long, global = true, value_enum, default_value = "text")]
    pub output: Format,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// KEY=VALUE lines, or a line for each thing
    Text,
    /// All that is known, as one JSON value
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum How {
    Ok,
    Error,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print this instance's parameters, or one of them alone
    Get {
        /// Name of the parameter; without it all
        key: Option<String>,
    },
    /// List the shared instances in this one: id, name, parameters
    Shared,
    /// Publish connection parameters, for whoever requested this instance
    #[command(
        after_help = "What is said here wins over what the release publishes under the same name. Keys that are not named \
        stay as they are; of a shared instance (--shared) all are to be named."
    )]
    Publish {
        /// A value is read as JSON if it is JSON, else as a text
        #[arg(value_name = "KEY=VALUE", required_unless_present_any = ["remove", "shared"])]
        pairs: Vec<String>,
        /// Publish this key no more; may be repeated
        #[arg(long, value_name = "KEY", conflicts_with = "shared")]
        remove: Vec<String>,
        /// For this shared instance in this one, instead of for itself
        #[arg(long, value_name = "ID")]
        shared: Option<String>,
    },
    /// Say how this instance is, for `plat show`
    Status {
        how: How,
        /// A sentence for people
        text: String,
    },
    /// Request an instance that belongs to this one, or look how it is
    #[command(
        after_help = "The same request twice is one instance: ask again with other parameters to change it, and with the name \
        alone to look. It is destroyed with this one."
    )]
    Request(RequestArgs),
    /// List what this instance requested: name, state, name in the project
    Children,
    /// Have the configure hooks of the whole tree of instances run again
    Bang,
}

#[derive(Debug, clap::Args)]
pub struct RequestArgs {
    /// Its name, among those that this instance requests
    pub name: String,
    /// Name of a release (its newest), or a digest. May be left out when changing it
    #[arg(long, short)]
    pub release: Option<String>,
    /// One parameter; may be repeated
    #[arg(long = "param", short = 'p', value_name = "KEY=VALUE", conflicts_with = "params")]
    pub param: Vec<String>,
    /// File with all parameters, as a JSON object
    #[arg(long, value_name = "FILE")]
    pub params: Option<PathBuf>,
    /// Thousandths of a core that it may use
    #[arg(long, value_name = "MILLIS")]
    pub cpu_millis: Option<u32>,
    /// Mebibytes of memory it may use
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u32>,
    /// Mebibytes of disk it may use
    #[arg(long, value_name = "MIB")]
    pub disk: Option<u32>,
    /// A place inside another instance, which accepts such, instead of a partition of its own
    #[arg(long)]
    pub shared: bool,
    /// The instance of the project that it is to be in; without it one of the release
    #[arg(long, value_name = "NAME", requires = "shared")]
    pub on: Option<String>,
    /// What it is to be: `destroyed` is final
    #[arg(long, value_parser = ["started", "stopped", "destroyed"])]
    pub wish: Option<String>,
    /// Print this connection parameter alone
    #[arg(long, value_name = "KEY")]
    pub get: Option<String>,
    /// Wait until it is as wished
    #[arg(long, short)]
    pub wait: bool,
    /// Seconds after which to wait no longer
    #[arg(long, default_value = "600", value_name = "SECONDS")]
    pub timeout: u64,
}
