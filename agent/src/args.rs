//! The command line as it is said.

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// The agent of a Plat node: installs releases, keeps instances running, meters what they use.
#[derive(Debug, Parser)]
#[command(name = "plat-agent", version)]
pub struct Args {
    /// Settings [default: /etc/plat/agent.toml, if it exists].
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Join a grid with a token.
    Enroll {
        /// Where the master listens: https://HOST:PORT.
        #[arg(long, value_name = "URL")]
        master: String,
        /// The token that `plat token create` printed, in a file, or `-` for standard input.
        #[arg(long, value_name = "FILE")]
        token_file: PathBuf,
        /// The agent's data folder, instead of the one in the settings.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// The name to ask for, if the token does not say one.
        #[arg(long)]
        name: Option<String>,
        /// Join the same grid under the same name again, after a revocation or with lost keys; what runs stays.
        #[arg(long)]
        again: bool,
        /// Only say whether it could be tried, asking nobody: exit code 0 if so, 3 if this node is enrolled in the token's
        /// grid already, 1 for anything else.
        #[arg(long, conflicts_with = "again")]
        check: bool,
    },
    /// Run until told to stop. Services go on running.
    Run {
        /// The agent's data folder, instead of the one in the settings.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// What node-format wrote, instead of the one in the settings.
        #[arg(long, value_name = "FILE")]
        node_file: Option<PathBuf>,
    },
}
