//! What a process did to its files, as strace saw it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A call, and where in the record it began and ended. Calls of several threads overlap.
#[derive(Debug)]
pub struct Call {
    pub begin: usize,
    pub end: usize,
    pub act: Act,
}

#[derive(Debug)]
pub enum Act {
    /// Opened for writing or to be made; `truncate` empties it.
    Open {
        path: PathBuf,
        create: bool,
        truncate: bool,
    },
    /// At this offset.
    Write {
        path: PathBuf,
        offset: u64,
        data: Vec<u8>,
    },
    /// At the end that the file has then.
    Append {
        path: PathBuf,
        data: Vec<u8>,
    },
    Resize {
        path: PathBuf,
        size: u64,
    },
    MakeDir {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
    /// fsync or fdatasync of a file or folder.
    Sync {
        path: PathBuf,
    },
    /// What was told to the outside on standard error.
    Say {
        text: String,
    },
}

/// The words to run a command under, so that `output` becomes what [`parse`] reads.
pub fn strace(output: &Path) -> Vec<String> {
    let calls = "openat,open,creat,write,pwrite64,writev,pwritev,pwritev2,lseek,rename,renameat,renameat2,unlink,\
                 unlinkat,mkdir,mkdirat,link,linkat,fsync,fdatasync,sync,syncfs,sync_file_range,ftruncate,truncate,\
                 fallocate,mmap,io_uring_setup,copy_file_range,sendfile";
    let words = ["strace", "-f", "-y", "-xx", "-s", "67108864", "--seccomp-bpf", "-e", "signal=none", "-e"];
    let mut words: Vec<_> = words.map(str::to_owned).into();
    words.extend([format!("trace={calls}"), "-o".into(), output.display().to_string()]);
    words
}

/// Where each descriptor writes next; `None`: always at the end of its file.
type Offsets = HashMap<u64, Option<u64>>;

/// Reads a record, keeping what is under `root` and what was said. Panics on what it does not understand: a call that
/// it overlooked would make the test weaker than it says.
pub fn parse(text: &str, root: &Path) -> Vec<Call> {
    let mut begun: HashMap<&str, (usize, String)> = HashMap::new();
    let mut offsets = Offsets::new();
    let mut calls = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let (pid, rest) = line.split_once(' ').expect("a process and a call");
        let rest = rest.trim_start();
        if rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        if let Some(start) = rest.strip_suffix(" <unfinished ...>").or(rest.strip_suffix("<unfinished ...>")) {
            begun.insert(pid, (at, start.to_owned()));
            continue;
        }
        let (begin, whole) = match rest.strip_prefix("<... ") {
            Some(resumed) => {
                let (begin, start) = begun.remove(pid).expect("a call that was begun");
                let end = resumed.split_once(" resumed>").expect("`resumed`").1;
                (begin, start + end)
            }
            None => (at, rest.to_owned()),
        };
        if let Some(act) = act(&whole, root, &mut offsets) {
            calls.push(Call { begin, end: at, act });
        }
    }
    // Calls that had not ended when the process did.
    for (begin, start) in begun.into_values() {
        if let Some(act) = act(&format!("{start}) = 0"), root, &mut offsets) {
            calls.push(Call { begin, end: usize::MAX, act });
        }
    }
    calls.sort_by_key(|call| call.end);
    calls
}

fn act(call: &str, root: &Path, offsets: &mut Offsets) -> Option<Act> {
    let (name, rest) = call.split_once('(').expect("a call");
    let (arguments, result) = rest.rsplit_once(" = ").expect("a result");
    let result = result.trim();
    if result.starts_with('-') || result.starts_with('?') {
        return None;
    }
    let arguments: Vec<&str> = arguments.trim_end().trim_end_matches(')').split(", ").collect();
    let path = |n: usize| PathBuf::from(String::from_utf8(quoted(arguments[n])).expect("a path is text"));
    let ours = |path: PathBuf| path.starts_with(root).then_some(path);
    let number = |n: usize| arguments[n].parse::<u64>().expect("a number");
    match name {
        "openat" | "open" => {
            let (path, flags) = if name == "openat" { (path(1), arguments[2]) } else { (path(0), arguments[1]) };
            let (descriptor, _) = open_file(result);
            let has = |wanted| flags.split('|').any(|flag| flag == wanted);
            offsets.insert(descriptor, (!has("O_APPEND")).then_some(0));
            let path = ours(path)?;
            assert!(!has("O_DIRECT"), "{call}");
            let writes = flags.contains("O_WRONLY") || flags.contains("O_RDWR");
            let open = || Act::Open { path, create: flags.contains("O_CREAT"), truncate: flags.contains("O_TRUNC") };
            writes.then(open)
        }
        "write" => {
            let (descriptor, path) = open_file(arguments[0]);
            if descriptor == 2 {
                return Some(Act::Say { text: String::from_utf8_lossy(&quoted(arguments[1])).into_owned() });
            }
            let data = written(arguments[1], result);
            let path = ours(path)?;
            let Some(offset) = offsets.get_mut(&descriptor).expect("a descriptor that was opened") else {
                return Some(Act::Append { path, data });
            };
            let start = *offset;
            *offset += data.len() as u64;
            Some(Act::Write { path, offset: start, data })
        }
        "pwrite64" => {
            let (descriptor, path) = open_file(arguments[0]);
            let path = ours(path)?;
            // Linux appends then, whatever the offset (pwrite(2)).
            assert!(offsets.get(&descriptor) != Some(&None), "{call}");
            Some(Act::Write { path, offset: number(3), data: written(arguments[1], result) })
        }
        "lseek" => {
            let (descriptor, _) = open_file(arguments[0]);
            if let Some(Some(offset)) = offsets.get_mut(&descriptor) {
                *offset = result.parse().expect("an offset");
            }
            None
        }
        "ftruncate" => Some(Act::Resize { path: ours(open_file(arguments[0]).1)?, size: number(1) }),
        "fsync" | "fdatasync" => Some(Act::Sync { path: ours(open_file(arguments[0]).1)? }),
        // It starts and awaits writing, and promises nothing over power loss (sync_file_range(2)).
        "sync_file_range" => None,
        "mkdir" => Some(Act::MakeDir { path: ours(path(0))? }),
        "mkdirat" => Some(Act::MakeDir { path: ours(path(1))? }),
        "rename" => Some(Act::Rename { from: ours(path(0))?, to: path(1) }),
        "renameat" | "renameat2" => Some(Act::Rename { from: ours(path(1))?, to: path(3) }),
        "unlink" => Some(Act::Unlink { path: ours(path(0))? }),
        "unlinkat" => Some(Act::Unlink { path: ours(path(1))? }),
        "mmap" => {
            let shared = arguments[3].contains("MAP_SHARED") && arguments[2].contains("PROT_WRITE");
            assert!(!shared || ours(open_file(arguments[4]).1).is_none(), "writes through memory are not seen: {call}");
            None
        }
        "fallocate" => {
            let path = ours(open_file(arguments[0]).1)?;
            panic!("fallocate of {} is not modelled", path.display())
        }
        other => {
            assert!(!arguments.iter().any(|a| a.contains('<') && ours(open_file(a).1).is_some()), "{other}: {call}");
            None
        }
    }
}

/// `3</path>` as its number and path. With -xx the path is escaped as texts are.
fn open_file(argument: &str) -> (u64, PathBuf) {
    let (number, path) = argument.split_once('<').unwrap_or((argument, ""));
    let path = unescape(path.trim_end_matches('>').as_bytes());
    (number.trim().parse().unwrap_or(u64::MAX), PathBuf::from(String::from_utf8_lossy(&path).into_owned()))
}

fn written(argument: &str, result: &str) -> Vec<u8> {
    let mut data = quoted(argument);
    // At the end of a process nobody sees how much was written.
    let length = result.parse().expect("a length");
    if length > 0 {
        assert!(data.len() >= length, "the record is cut short");
        data.truncate(length);
    }
    data
}

fn quoted(argument: &str) -> Vec<u8> {
    let text = argument.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    unescape(text.unwrap_or_else(|| panic!("a whole text, not {:.80}", argument)).as_bytes())
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).expect("a hexadecimal digit") as u8;
    let mut bytes = Vec::with_capacity(text.len() / 4);
    let mut rest = text;
    loop {
        match rest {
            [] => return bytes,
            [b'\\', b'x', high, low, more @ ..] => {
                bytes.push(digit(*high) << 4 | digit(*low));
                rest = more;
            }
            [plain, more @ ..] => {
                bytes.push(*plain);
                rest = more;
            }
        }
    }
}
