//! A connection to the grid of a profile.

mod renew;

use crate::profile::Profile;
use plat_link::{Address, DialSettings, Trust, dial, tcp};
use plat_model::{Result, Timestamp};
use plat_wire::ends::{self, AdminClient, GridClient, UsageClient};
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::Channel;

/// The file of a profile with the key, its chain and the grid's root.
pub const CREDENTIALS: &str = "credentials.pem";

pub struct Session {
    channel: Channel,
    url: String,
    expires: Timestamp,
}

impl Session {
    /// Reads the profile; connects with the first call.
    pub async fn open(folder: &Path) -> Result<Self> {
        let profile = Profile::load(folder)?;
        let credentials = renew::current(folder, &profile).await?;
        let expires = credentials.validity().not_after;
        let address = Address::parse(&profile.url)?;
        let channel = dial(&address, Trust::Credentials(credentials), DialSettings::default(), tcp)?;
        Ok(Self { channel, url: profile.url, expires })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// When the credentials end, unless they are renewed: from half their life on, each command does that.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    pub fn grid(&self) -> GridClient {
        ends::grid_client(self.channel.clone())
    }

    pub fn admin(&self) -> AdminClient {
        ends::admin_client(self.channel.clone())
    }

    pub fn usage(&self) -> UsageClient {
        ends::usage_client(self.channel.clone())
    }

    /// Waits a moment before a broken stream is opened again, but never past `deadline`.
    pub async fn reconnect_before(&self, deadline: Instant) -> Result<()> {
        let next = Instant::now() + Duration::from_millis(500);
        tokio::time::sleep_until(next.min(deadline)).await;
        Ok(())
    }
}
