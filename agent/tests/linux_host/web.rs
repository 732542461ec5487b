//! A server on loopback that answers as its test says.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

pub struct Asked {
    pub method: String,
    /// With what comes after `?`.
    pub path: String,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

pub struct Answer {
    pub status: u16,
    pub kind: &'static str,
    pub body: Vec<u8>,
    /// What is said of the body's length, if that is not true.
    pub claimed: Option<usize>,
    pub headers: Vec<(&'static str, String)>,
}

impl Answer {
    pub fn of(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, kind: "application/octet-stream", body: body.into(), claimed: None, headers: Vec::new() }
    }

    pub fn nothing() -> Self {
        Self { status: 404, ..Self::of("not here") }
    }
}

pub struct Web {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Web {
    pub fn serve(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::serve_as(None, answer)
    }

    /// Over https, with this certificate.
    pub fn serve_tls(
        tls: Arc<rustls::ServerConfig>,
        answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::serve_as(Some(tls), answer)
    }

    pub fn serve_as(
        tls: Option<Arc<rustls::ServerConfig>>,
        answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (asked, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let heard = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, heard, tls, stream) = (answer.clone(), heard.clone(), tls.clone(), stream.unwrap());
                std::thread::spawn(move || match tls {
                    None => answer_one(stream, &*answer, &heard),
                    Some(tls) => {
                        let connection = rustls::ServerConnection::new(tls).unwrap();
                        answer_one(rustls::StreamOwned::new(connection, stream), &*answer, &heard)
                    }
                });
            }
        });
        Self { url, asked }
    }

    /// Serves what the map has, by path.
    pub fn of(files: BTreeMap<String, Vec<u8>>) -> Self {
        Self::serve(move |asked| files.get(&asked.path).map_or_else(Answer::nothing, |body| Answer::of(body.clone())))
    }

    /// The paths that were asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer_one(stream: impl Read + Write, answer: &dyn Fn(&Asked) -> Answer, heard: &Mutex<Vec<String>>) -> Option<()> {
    let mut from = BufReader::new(stream);
    let mut line = String::new();
    from.read_line(&mut line).ok()?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    heard.lock().unwrap().push(path.clone());
    let Answer { status, kind, body, claimed, headers } = answer(&Asked { method, path, headers, body });
    let length = claimed.unwrap_or(body.len());
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "HTTP/1.1 {status} as told\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n{more}connection: close\r\n\r\n"
    );
    let mut to = from.into_inner();
    to.write_all(head.as_bytes()).and_then(|()| to.write_all(&body)).and_then(|()| to.flush()).ok()
}

/// Answers as a git server would for the repository at `path`.
pub fn git_answer(path: &std::path::Path, asked: &Asked) -> Answer {
    let advertise = asked.path.ends_with("/info/refs?service=git-upload-pack");
    if !advertise && !asked.path.ends_with("/git-upload-pack") {
        return Answer::nothing();
    }
    let mut command = Command::new("git");
    command.args(["-c", "safe.directory=*", "upload-pack", "--stateless-rpc"]);
    command.args(advertise.then_some("--advertise-refs")).arg(path);
    command.env("GIT_PROTOCOL", asked.headers.get("git-protocol").map_or("", String::as_str));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&asked.body).unwrap();
    let said = child.wait_with_output().unwrap().stdout;
    let kind =
        if advertise { "application/x-git-upload-pack-advertisement" } else { "application/x-git-upload-pack-result" };
    Answer { kind, ..Answer::of(said) }
}
