//! The command line, as it is written. Nothing here looks at a disk.

use clap::{Parser, Subcommand};
use plat_link::Address;
use plat_model::id::{GridName, UserName};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The master of a grid.
#[derive(Debug, Parser)]
#[command(name = "plat-master", version, about)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a grid: its CA, its store, the configuration and the first operator's credentials.
    Init(InitArgs),
    /// Make new credentials for an operator, on the data of a master that is stopped.
    ///
    /// For a grid of which no operator's credentials are good any more: they are good for 30 days, and `plat` renews
    /// them only while somebody uses it.
    Operator {
        /// The configuration that `init` wrote.
        #[arg(long, value_name = "FILE", default_value = "/etc/plat/master.toml")]
        config: PathBuf,
        /// Name of the operator; one that there is gets new credentials, and its old ones end.
        #[arg(long, value_name = "NAME", value_parser = UserName::parse)]
        name: UserName,
        /// Folder for the operator's credentials; must not exist [default: ~/.config/plat/default].
        #[arg(long, value_name = "DIR")]
        profile: Option<PathBuf>,
    },
    /// Run the master.
    Run {
        /// The configuration that `init` wrote.
        #[arg(long, value_name = "FILE", default_value = "/etc/plat/master.toml")]
        config: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// Folder for the CA and the store; empty or missing.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Name of the grid: the trust domain of its certificates.
    #[arg(long, value_name = "NAME", default_value = "grid", value_parser = GridName::parse)]
    pub grid: GridName,
    /// How agents and people will reach the master.
    #[arg(long, value_name = "URL", default_value = "https://localhost:7443", value_parser = Address::parse)]
    pub url: Address,
    /// Address and port to listen on; may be given several times. Default: all addresses, the port of the URL.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Vec<SocketAddr>,
    /// Name of the first operator.
    #[arg(long, value_name = "NAME", default_value = "operator", value_parser = UserName::parse)]
    pub operator: UserName,
    /// Where to write the configuration [default: master.toml in the data folder].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder for the operator's credentials [default: ~/.config/plat/default].
    #[arg(long, value_name = "DIR")]
    pub profile: Option<PathBuf>,
    /// The user that will run the master: the data folder is given to it. Root only.
    #[arg(long, value_name = "USER")]
    pub owner: Option<String>,
    /// How the state is stored: redb or sled.
    #[arg(long, value_name = "STORE", default_value = "redb")]
    pub store: String,
}
