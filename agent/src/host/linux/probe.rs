//! Asking whether a promise holds over the network, as the partition's user.

use super::account::assume;
use super::namespace;
use plat_document::release::{HttpCheck, TcpCheck};
use plat_model::Problem;
use plat_model::node::Account;
use serde::{Deserialize, Serialize};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Longest message about a check, in characters.
pub const MESSAGE_MAX: usize = 500;

#[derive(Serialize, Deserialize)]
pub enum Question {
    Http(HttpCheck),
    Tcp(TcpCheck),
}

#[derive(Serialize, Deserialize)]
pub struct ProbeTask {
    pub question: Question,
    pub timeout_seconds: u32,
    pub account: Option<Account>,
    /// The network namespace that it is asked in; `None`: the agent's.
    pub namespace: Option<PathBuf>,
}

impl ProbeTask {
    /// Whether it holds, and what was seen.
    pub fn perform(&self) -> Result<(bool, String), Problem> {
        namespace::enter(self.namespace.as_deref())?;
        assume(self.account.as_ref())?;
        let timeout = Duration::from_secs(self.timeout_seconds.max(1).into());
        let (holds, message) = match &self.question {
            Question::Tcp(check) => tcp(check, timeout),
            Question::Http(check) => http(check, timeout),
        };
        Ok((holds, message.chars().take(MESSAGE_MAX).collect()))
    }
}

fn tcp(check: &TcpCheck, timeout: Duration) -> (bool, String) {
    let until = Instant::now() + timeout;
    let place = format!("{} port {}", check.address, check.port);
    let Ok(port) = check.port.parse::<u16>() else { return (false, format!("{place}: that is not a port")) };
    let addresses = match (check.address.as_str(), port).to_socket_addrs() {
        Ok(addresses) => addresses,
        Err(e) => return (false, format!("{place}: {e}")),
    };
    let mut last = format!("{place}: there is no such address");
    for address in addresses {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(_) => return (true, format!("{place} accepts connections")),
            Err(e) => last = format!("{place}: {e}"),
        }
    }
    (false, last)
}

/// One GET. A redirect is an answer like any other: nobody is led to another host.
fn http(check: &HttpCheck, timeout: Duration) -> (bool, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into();
    match agent.get(&check.url).call() {
        Ok(answer) if answer.status().as_u16() == check.status => {
            (true, format!("{} answers {}", check.url, check.status))
        }
        Ok(answer) => (false, format!("{} answers {}, expected {}", check.url, answer.status().as_u16(), check.status)),
        Err(e) => (false, format!("{}: {e}", check.url)),
    }
}
