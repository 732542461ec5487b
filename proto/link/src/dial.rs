//! A gRPC channel to the master, over any connector.
//!
//! A connection counts as made once the master's first bytes have come: in TLS 1.3 a client has finished before the
//! server has looked at its certificate, so a refusal would otherwise show up as a broken first call.

use crate::credentials::Credentials;
use crate::tls;
use hyper_util::rt::TokioIo;
use plat_model::id::shorten;
use plat_model::problem::codes;
use plat_model::{Problem, Result};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

/// Where a master listens: `https://HOST:PORT`; HOST is a name, an IPv4 address or an IPv6 one in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// # Errors
    /// [`codes::BAD_ADDRESS`] if the text is not of that form.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Problem::new(codes::BAD_ADDRESS, format!("`{}` is not the address of a master", shorten(text)))
                .because(why)
                .fix("write it as https://HOST:PORT, for example https://master.example:7443 or https://[fd00::1]:7443")
        };
        let uri: Uri = text.parse().map_err(|_| wrong("it is not a URL"))?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong("it does not start with https://"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("something follows the port"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("it holds a user name"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().filter(|port| *port != 0).ok_or_else(|| wrong("it has no port"))?;
        if host.is_empty() {
            return Err(wrong("it has no host"));
        }
        Ok(Self { host: host.to_string(), port })
    }

    /// Name, or IP address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "https://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "https://{}:{}", self.host, self.port)
        }
    }
}

/// How the master is recognised, and what this side shows.
#[derive(Clone)]
pub enum Trust {
    /// With a certificate; each new connection takes the current one.
    Credentials(Arc<Credentials>),
    /// Without, by the pin of the CA's root: for `Enroll` and `Login`.
    Pin(tls::RootPin),
}

impl Trust {
    fn config(&self) -> Result<Arc<ClientConfig>> {
        match self {
            Self::Credentials(credentials) => Ok(credentials.client_config()),
            Self::Pin(pin) => tls::pinned_client(*pin).map(Arc::new),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct DialSettings {
    /// For name lookup, TCP, TLS and the first bytes together.
    pub connect_timeout: Duration,
    /// How often an idle connection is tried.
    pub keepalive: Duration,
    /// How long the answer to that may take before the connection counts as dead.
    pub keepalive_timeout: Duration,
    /// Largest list of headers in bytes that is accepted.
    pub max_headers: u32,
}

impl Default for DialSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            keepalive: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            max_headers: 64 * 1024,
        }
    }
}

/// A channel that connects at its first call and again whenever the connection was lost. A connection that cannot be
/// made fails the call with a status that has the [`Problem`] among its causes. Deadlines are set call by call.
///
/// # Errors
/// [`codes::BAD_ADDRESS`] if the address cannot be used in a request.
pub fn dial<C, F, IO>(address: &Address, trust: Trust, settings: DialSettings, connect: C) -> Result<Channel>
where
    C: Fn(Address) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<IO>> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // `http`, for TLS is done below, by the connector.
    let plain = address.to_string().replacen("https", "http", 1);
    let endpoint = Endpoint::from_shared(plain)
        .map_err(|why| Problem::new(codes::BAD_ADDRESS, format!("{address} cannot be used")).because(why))?
        .http2_keep_alive_interval(settings.keepalive)
        .keep_alive_timeout(settings.keepalive_timeout)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(settings.max_headers);
    let address = address.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let (address, trust, connect) = (address.clone(), trust.clone(), connect.clone());
        async move {
            let made = open(&address, &trust, connect(address.clone()));
            match tokio::time::timeout(settings.connect_timeout, made).await {
                Ok(made) => made.map(TokioIo::new),
                Err(_) => Err(Problem::new(codes::UNREACHABLE, format!("cannot reach {address}"))
                    .because(format!("no connection was made within {:?}", settings.connect_timeout))
                    .fix("check the address, that the master runs, and that no firewall is in between")),
            }
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

async fn open<IO>(
    address: &Address,
    trust: &Trust,
    connect: impl Future<Output = io::Result<IO>>,
) -> Result<tokio_rustls::client::TlsStream<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let name = address.to_string();
    let explain = |why: io::Error| tls::explain(&why, &name);
    let config = trust.config()?;
    let stream = connect.await.map_err(explain)?;
    // Not looked at: the master is recognised by the identity in its certificate.
    let server = ServerName::try_from("master")
        .map_err(|why| Problem::new(codes::INTERNAL, "`master` is no name for TLS").because(why))?;
    let mut stream = TlsConnector::from(config).connect(server, stream).await.map_err(explain)?;
    let first = stream.fill_buf().await.map_err(explain)?;
    if first.is_empty() {
        return Err(explain(io::Error::new(io::ErrorKind::ConnectionReset, "it closed the connection at once")));
    }
    Ok(stream)
}

/// Connects over TCP: the `connect` of [`dial`] for real networks.
pub async fn tcp(address: Address) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((address.host(), address.port())).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_a_host_and_a_port() {
        for good in ["https://master.example:7443", "https://10.0.0.1:7443", "https://[fd00::1]:7443"] {
            assert_eq!(Address::parse(good).unwrap().to_string(), good);
        }
        assert_eq!(Address::parse("https://[fd00::1]:7443/").unwrap().host(), "fd00::1");
        for wrong in
            ["", "x", "http://a:1", "https://a", "https://a:0", "https://u@a:1", "https://a:1/x", "https://a:99999"]
        {
            assert_eq!(Address::parse(wrong).unwrap_err().code, codes::BAD_ADDRESS, "{wrong}");
        }
    }
}
