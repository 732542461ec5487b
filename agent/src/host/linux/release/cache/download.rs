//! Asking one server for one file, from where the last answer was cut off. It speaks to strangers, so the process that
//! does this has nothing but the file that it writes.

use super::trust;
use rustix::fs::fstatvfs;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, StatusCode};

/// Largest file that is fetched, in bytes.
pub const FILE_MAX: u64 = 8 << 30;
/// Longest fetch.
pub const FETCH_MAX: Duration = Duration::from_secs(3600);
/// Fewest bytes a second: a place that sends less is given up for the next one.
pub const LEAST_RATE: u64 = 1024;
/// How often it is told how far it has come, and how often the disk is looked at.
const TELL: Duration = Duration::from_secs(1);

/// What is said on the way, and at the end.
#[derive(Debug, Serialize, Deserialize)]
pub enum Said {
    /// The server's name for this version of the file.
    Tag(String),
    /// Bytes that are there, and all of them if the server told.
    Have(u64, Option<u64>),
    Ended(Ended),
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Ended {
    Whole,
    /// What came is kept; asking again goes on from there.
    Cut(String),
    /// Asking again is of no use.
    Refused(String),
    /// The server cannot prove who it is.
    Untrusted(String),
    /// The server, or the folder, does not have it.
    Lacks(String),
    /// There is no room for it on the disk.
    NoRoom {
        why: String,
        /// Bytes that are still to come, as far as that is known.
        bytes: u64,
    },
}

pub struct Ask<'a> {
    /// http, https, or the absolute path of a file.
    pub from: &'a str,
    /// The server's name for the version that is there in part.
    pub tag: Option<&'a str>,
    /// Whose word servers are taken on, as [`trust::tls`] has it.
    pub authorities: Option<&'a Path>,
    /// Bytes that must stay free.
    pub spare: u64,
    /// Bytes that it may have.
    pub most: u64,
    /// How long a server may say nothing, and over which it must send [`LEAST_RATE`].
    pub silence: Duration,
    /// How long all of it may take.
    pub longest: Duration,
}

/// Whether what comes is worth waiting for.
struct Pace {
    since: Instant,
    had: u64,
    over: Duration,
}

impl Pace {
    /// `have`: bytes that are there at `now`.
    fn is_kept(&mut self, now: Instant, have: u64) -> bool {
        let passed = now.duration_since(self.since);
        if passed < self.over {
            return true;
        }
        let came = u128::from(have.saturating_sub(self.had));
        (self.since, self.had) = (now, have);
        came * 1000 >= u128::from(LEAST_RATE) * passed.as_millis()
    }
}

/// Fetches what is not in `file` yet, which is open at its end and for appending.
pub fn download(ask: &Ask<'_>, file: &mut File, say: &mut dyn FnMut(Said) -> io::Result<()>) -> Ended {
    fetch(ask, file, say).unwrap_or_else(|ended| ended)
}

fn fetch(ask: &Ask<'_>, file: &mut File, say: &mut dyn FnMut(Said) -> io::Result<()>) -> Result<Ended, Ended> {
    let disk = |e: io::Error| match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Ended::NoRoom { why: e.to_string(), bytes: 0 },
        _ => Ended::Refused(format!("it cannot be written: {e}")),
    };
    let mut have = file.metadata().map_err(disk)?.len();
    if ask.from.starts_with('/') {
        file.set_len(0).map_err(disk)?;
        return open(Path::new(ask.from)).and_then(|(mut from, all)| pour(ask, &mut from, file, (0, Some(all)), say));
    }
    loop {
        let answer = request(ask, have)?;
        let (status, headers) = (answer.status(), answer.headers());
        let length = answer.body().content_length();
        if let Some(tag) = tag_of(headers) {
            say(Said::Tag(tag)).map_err(disk)?;
        }
        let all = match status {
            StatusCode::OK => {
                file.set_len(0).map_err(disk)?;
                have = 0;
                length
            }
            StatusCode::PARTIAL_CONTENT if begins_at(headers, have) => length.map(|rest| have + rest),
            // It goes on from elsewhere, or what is here is longer than what is there.
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => {
                file.set_len(0).map_err(disk)?;
                have = 0;
                continue;
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                return Err(Ended::Lacks(format!("the server answers {status}")));
            }
            status if status.is_server_error() => return Err(Ended::Cut(format!("the server answers {status}"))),
            _ => return Err(Ended::Refused(format!("the server answers {status}"))),
        };
        // One more byte than may be: then it is too large, not cut off.
        let mut body = answer.into_body().into_with_config().limit(ask.most + 1).reader();
        return pour(ask, &mut body, file, (have, all), say);
    }
}

fn request(ask: &Ask<'_>, have: u64) -> Result<ureq::http::Response<ureq::Body>, Ended> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .tls_config(trust::tls(ask.from, ask.authorities).map_err(Ended::Refused)?)
        // Who named a server that proves who it is meant that one.
        .https_only(ask.from.starts_with("https://"))
        .timeout_global(Some(ask.longest))
        .timeout_resolve(Some(Duration::from_secs(20)))
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(ask.silence))
        .timeout_per_read(Some(ask.silence))
        .max_redirects(5)
        .http_status_as_error(false)
        .build()
        .into();
    let mut request = agent.get(ask.from).header("Accept-Encoding", "identity");
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
        request = ask.tag.into_iter().fold(request, |request, tag| request.header("If-Range", tag));
    }
    request.call().map_err(|e| match e {
        ureq::Error::BadUri(_) | ureq::Error::TooManyRedirects | ureq::Error::RedirectFailed => {
            Ended::Refused(e.to_string())
        }
        ureq::Error::RequireHttpsOnly(to) => Ended::Refused(format!("it leads away from https, to {to}")),
        ureq::Error::Io(e) if is_untrusted(&e) => Ended::Untrusted(e.to_string()),
        other => Ended::Cut(other.to_string()),
    })
}

fn is_untrusted(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}

/// Only a strong one says that bytes are the same.
fn tag_of(headers: &HeaderMap) -> Option<String> {
    let tag = headers.get("etag")?.to_str().ok()?;
    (tag.starts_with('"') && tag.len() <= 256).then(|| tag.to_owned())
}

fn begins_at(headers: &HeaderMap, at: u64) -> bool {
    let range = headers.get("content-range").and_then(|value| value.to_str().ok());
    range.and_then(|text| text.strip_prefix("bytes ")?.split_once('-')).is_some_and(|(from, _)| from.parse() == Ok(at))
}

/// Nothing that would hold the reader up.
fn open(path: &Path) -> Result<(File, u64), Ended> {
    let about = std::fs::metadata(path).map_err(|e| Ended::Lacks(e.to_string()))?;
    if !about.is_file() {
        return Err(Ended::Refused("it is not a file".into()));
    }
    File::open(path).map(|file| (file, about.len())).map_err(|e| Ended::Refused(e.to_string()))
}

/// `have`: how much is there, and all of it if that is known.
fn pour(
    ask: &Ask<'_>,
    from: &mut dyn Read,
    file: &mut File,
    (mut have, all): (u64, Option<u64>),
    say: &mut dyn FnMut(Said) -> io::Result<()>,
) -> Result<Ended, Ended> {
    let too_large = || Ended::Refused(format!("it has more than {} bytes", ask.most));
    if all.is_some_and(|all| all > ask.most) {
        return Err(too_large());
    }
    let (mut buffer, mut looked) = (vec![0; 64 * 1024], None::<Instant>);
    let mut pace = Pace { since: Instant::now(), had: have, over: ask.silence };
    loop {
        if looked.is_none_or(|at| at.elapsed() > TELL) {
            looked = Some(Instant::now());
            let disk = fstatvfs(&*file).map_err(|e| Ended::Refused(format!("its disk does not answer: {e}")))?;
            let (free, rest) = (disk.f_bavail * disk.f_frsize, all.map_or(0, |all| all.saturating_sub(have)));
            if free < rest + ask.spare {
                let (free, more, spare) = (free >> 20, rest.div_ceil(1 << 20), ask.spare >> 20);
                let why = format!("{free} MiB are free, it takes {more} MiB more, and {spare} MiB must stay free");
                return Err(Ended::NoRoom { why, bytes: rest });
            }
            say(Said::Have(have, all)).map_err(|e| Ended::Cut(e.to_string()))?;
        }
        match from.read(&mut buffer) {
            Ok(0) if all.is_some_and(|all| have < all) => return Err(Ended::Cut("it was cut off".into())),
            Ok(0) => return Ok(Ended::Whole),
            Ok(n) => {
                have += n as u64;
                if have > ask.most {
                    return Err(too_large());
                }
                file.write_all(&buffer[..n]).map_err(|e| match e.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                        Ended::NoRoom { why: e.to_string(), bytes: all.map_or(0, |all| all.saturating_sub(have)) }
                    }
                    _ => Ended::Refused(format!("it cannot be written: {e}")),
                })?;
                if !pace.is_kept(Instant::now(), have) {
                    return Err(Ended::Refused(format!("it sends less than {LEAST_RATE} bytes a second")));
                }
            }
            Err(e) => return Err(Ended::Cut(e.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_sends_a_byte_now_and_then_is_no_source_and_a_slow_one_is() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let pace = || Pace { since: begun, had: 5000, over: Duration::from_secs(60) };
        let mut trickle = pace();
        assert!(trickle.is_kept(at(30), 5001), "it has not been looked at for long enough");
        assert!(!trickle.is_kept(at(60), 5002));
        let (mut slow, mut stopped) = (pace(), pace());
        assert!(slow.is_kept(at(90), 5000 + 90 * LEAST_RATE));
        assert!(!slow.is_kept(at(150), 5000 + 149 * LEAST_RATE), "what came before does not count");
        assert!(stopped.is_kept(at(60), 1 << 30) && !stopped.is_kept(at(120), 1 << 30));
    }
}
