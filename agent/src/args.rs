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
    /// Let systemd start services again by itself until the next agent does: what `plat-agent.service` runs when the agent
    /// has ended.
    Away {
        /// The agent's data folder, instead of the one in the settings.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
    /// Share built releases and fetched files with other nodes.
    Cache {
        #[command(subcommand)]
        command: CacheCommand,
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

#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// Make the key that this node shares with, and print what others trust it by.
    #[command(after_help = "Example:\n  plat-agent cache keygen --out /etc/plat/share.key")]
    Keygen {
        /// The file for the key, which must not exist yet.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Put releases that this node has built into a store, signed.
    #[command(
        after_help = "Example:\n  plat-agent cache push --key /etc/plat/share.key --to /mnt/shared/plat 3f2a9c1b\n  \
            plat-agent cache push --to https://cache.example.org/plat --token-file token --files"
    )]
    Push {
        /// The store: a folder by its absolute path, or the URL of a server that takes files with PUT.
        #[arg(long, value_name = "PLACE")]
        to: String,
        /// The key that says whose builds they are.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// What the server knows the writer by, in a file: sent as a bearer token.
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
        /// Also what this node has fetched: the store is a mirror then.
        #[arg(long)]
        files: bool,
        /// Digests of releases, or 8 and more of their first digits.
        #[arg(value_name = "DIGEST", required_unless_present = "files")]
        releases: Vec<String>,
    },
    /// Check what the store of agent.toml has of a release for this node, and fetch it, as the agent does by itself before
    /// it would build the release.
    Pull {
        /// The release's whole digest, as `plat release show` tells it.
        #[arg(value_name = "DIGEST", required = true)]
        releases: Vec<String>,
    },
}
