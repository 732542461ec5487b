//! Unpacking within limits: whatever a source holds, nothing of it is laid outside its folder, and no more than has room.

use super::tree::Tree;
use crate::host::linux::disk::io_problem;
use nix::sys::resource::{Resource, getrlimit};
use plat_document::Release;
use plat_model::Problem;
use plat_model::problem::codes;
use rustix::fs::FileType;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use tar::EntryType;

/// Most of everything that one source may unpack to: bytes, entries.
const UNPACKED_MAX: u64 = 32 << 30;
const ENTRIES_MAX: u64 = 2_000_000;
/// The head and the rounding of an entry of a tar archive, in bytes, at most; of its name too, if that is long.
const ENTRY_MAX: u64 = 4096;
/// Of [`memory`], whatever this process may have.
const MEMORY_MAX: u64 = 128 << 20;
const MEMORY_MIN: u64 = 8 << 20;

/// The contents of an archive, as long as one may be that fits: all of that, with the head and the rounding of each entry.
pub fn stream(file: impl Read + Seek + 'static, room: &Room) -> io::Result<io::Take<Box<dyn Read>>> {
    Ok(decompress(file)?.take(room.bytes.saturating_add(room.entries.saturating_mul(ENTRY_MAX))))
}

/// By what it is, not by what it is called.
fn decompress(mut file: impl Read + Seek + 'static) -> io::Result<Box<dyn Read>> {
    let mut magic = [0; 6];
    let n = file.read(&mut magic)?;
    file.rewind()?;
    let file = BufReader::new(file);
    let most = memory();
    Ok(match &magic[..n] {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(file)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            let stream = liblzma::stream::Stream::new_stream_decoder(most, liblzma::stream::CONCATENATED)?;
            Box::new(Held { from: liblzma::bufread::XzDecoder::new_stream(file, stream), most })
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut from = zstd::stream::read::Decoder::with_buffer(file)?;
            from.window_log_max(most.ilog2())?;
            Box::new(Held { from, most })
        }
        _ => Box::new(file),
    })
}

/// What unpacking one archive may have of memory, in bytes: an archive of a few bytes can ask for gigabytes. Half of what this
/// process may have, and as much as what `xz -9` and `zstd --long` make takes.
fn memory() -> u64 {
    let own = getrlimit(Resource::RLIMIT_DATA).map_or(MEMORY_MAX, |(soft, _)| soft / 2);
    own.clamp(MEMORY_MIN, MEMORY_MAX)
}

/// What has a dictionary, told in words if that has no room.
struct Held<R> {
    from: R,
    most: u64,
}

impl<R: Read> Read for Held<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.from.read(buffer).map_err(|e| match e.to_string() {
            // Neither library has a kind for it.
            text if text.contains("memory") => io::Error::other(format!(
                "unpacking it takes more than {} MiB of memory, which is what this node gives to it ({text})",
                self.most >> 20
            )),
            _ => e,
        })
    }
}

/// What is unpacked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As many leading path components are dropped.
    Archive { strip: u32 },
    /// A layer of an image, over those below it. What it hides has been removed; its links may be to absolute paths.
    Layer,
    /// What another node built, signed: links may be to whatever a build may link to.
    Built,
}

/// What an entry of a layer hides of the layers below it.
pub enum Hidden {
    /// All that is in its folder.
    All,
    /// What has this name in its folder.
    One(OsString),
    /// It is of use only to who made the layer.
    Nothing,
}

/// The meaning of an entry's name, if it is not what its name says.
pub fn whiteout(path: &Path) -> Option<Hidden> {
    let hidden = path.file_name()?.as_bytes().strip_prefix(b".wh.")?;
    Some(match hidden {
        b".wh..opq" => Hidden::All,
        name if name.starts_with(b".wh.") => Hidden::Nothing,
        name => Hidden::One(OsStr::from_bytes(name).to_owned()),
    })
}

/// What a source may still lay: every kind has the same limits.
pub struct Room {
    bytes: u64,
    entries: u64,
}

impl Room {
    pub fn of_a_source() -> Self {
        Self { bytes: UNPACKED_MAX, entries: ENTRIES_MAX }
    }

    /// Of all that may come of a release: of each source as much as one may be, and as much of its commands.
    pub fn of_a_release(release: &Release) -> Self {
        let parts = release.sources.len() as u64 + u64::from(release.build.is_some());
        Self { bytes: UNPACKED_MAX * parts, entries: ENTRIES_MAX * parts }
    }

    /// One entry more.
    pub fn entry(&mut self, path: &Path) -> io::Result<()> {
        let left = self.entries.checked_sub(1);
        self.entries = left.ok_or_else(|| refuse("is one entry too many", path))?;
        Ok(())
    }

    /// Writes a file, if all of its contents have room.
    pub fn write(&mut self, tree: &Tree, path: &Path, executable: bool, contents: &mut dyn Read) -> io::Result<()> {
        let written = tree.write(path, executable, &mut contents.take(self.bytes + 1))?;
        let left = self.bytes.checked_sub(written);
        self.bytes = left.ok_or_else(|| refuse("is larger than all of a source may be", path))?;
        Ok(())
    }
}

pub fn refuse(why: &str, path: &Path) -> io::Error {
    io::Error::other(format!("{} {why}", path.display()))
}

/// What it means that a source cannot be unpacked.
pub fn problem(what: String, error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::FileTooLarge => Problem::new(codes::BUILD_FAILED, what)
            .because(format!("one of its files is larger than `build.disk_mib` allows ({error})"))
            .fix("raise what the node allows, or use another archive"),
        _ => io_problem(codes::BAD_ARCHIVE, what, error),
    }
}

/// The problem if a link that was laid leads out of the tree.
pub fn refuse_links_out(what: String, tree: &Tree) -> Result<(), Problem> {
    match tree.link_that_leaves() {
        Ok(None) => Ok(()),
        Ok(Some(link)) => Err(Problem::new(codes::BAD_ARCHIVE, what)
            .because(format!("the link {} in it leads out of the release", link.display()))),
        Err(e) => Err(problem(what, &e)),
    }
}

/// Unpacks a tar archive into `tree`, plain or compressed with gzip, xz or zstd.
///
/// # Errors
/// What cannot be read; paths and links that reach out, devices, and more than there is room for.
pub fn unpack(file: impl Read + Seek + 'static, form: Form, tree: &Tree, room: &mut Room) -> io::Result<()> {
    let strip = if let Form::Archive { strip } = form { strip } else { 0 };
    let mut archive = tar::Archive::new(stream(file, room)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let named = entry.path()?.into_owned();
        if form == Form::Layer && whiteout(&named).is_some() {
            continue;
        }
        room.entry(&named)?;
        let Some(path) = stripped(&named, strip).map_err(|why| refuse(why, &named))? else { continue };
        let kind = entry.header().entry_type();
        if form == Form::Layer {
            // A folder stays under a folder; everything else gives way to what a higher layer has there.
            let there = tree.kind(&path)?;
            if there.is_some_and(|there| (there == FileType::Directory) != (kind == EntryType::Directory)) {
                tree.remove(&path)?;
            }
        }
        match kind {
            EntryType::Directory => tree.make_folder(&path)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let executable = entry.header().mode()? & 0o100 != 0;
                room.write(tree, &path, executable, &mut entry)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.ok_or_else(|| refuse("is a link to nothing", &named))?;
                if target.is_absolute() && matches!(form, Form::Archive { .. }) {
                    return Err(refuse("is a link to an absolute path", &named));
                }
                tree.link(&path, &target)?;
            }
            EntryType::Link => {
                let target = entry.link_name()?.ok_or_else(|| refuse("is a link to nothing", &named))?.into_owned();
                let of = stripped(&target, strip).map_err(|why| refuse(why, &target))?;
                tree.hard_link(&path, &of.ok_or_else(|| refuse("is a link to what was dropped", &named))?)?;
            }
            EntryType::XGlobalHeader => {}
            _ => return Err(refuse("is neither file, folder nor link", &named)),
        }
    }
    Ok(())
}

/// The path within the release; `None` for what is dropped.
pub fn stripped(path: &Path, strip: u32) -> Result<Option<PathBuf>, &'static str> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name),
            Component::CurDir => {}
            Component::ParentDir => return Err("has `..` in its path"),
            Component::RootDir | Component::Prefix(_) => return Err("has an absolute path"),
        }
    }
    let kept: PathBuf = parts.into_iter().skip(strip as usize).collect();
    Ok((!kept.as_os_str().is_empty()).then_some(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_elsewhere_has_as_much_room_as_building_it_has() {
        let text = r#"{"version": 1, "name": "a", "sources": {
            "one": {"archive": {"url": "/a", "sha256": ""}}, "two": {"archive": {"url": "/b", "sha256": ""}}
        }, "build": {"commands": [["true"]]}}"#;
        let mut room = Room::of_a_release(&serde_json::from_str(text).unwrap());
        assert_eq!(room.bytes, 3 * Room::of_a_source().bytes);
        assert!((0..2 * ENTRIES_MAX + 1).all(|_| room.entry(Path::new("a")).is_ok()));
    }

    #[test]
    fn what_has_no_room_is_refused_and_not_written_on() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path(), "").unwrap();
        let mut room = Room { bytes: 10, entries: 1 };
        room.entry(Path::new("a")).unwrap();
        room.write(&tree, Path::new("a"), false, &mut &b"1234567"[..]).unwrap();
        assert!(room.entry(Path::new("b")).unwrap_err().to_string().contains("one entry too many"));
        let error = room.write(&tree, Path::new("b"), false, &mut io::repeat(b'x')).unwrap_err();
        assert!(error.to_string().contains("larger than all of a source"), "{error}");
        assert!(std::fs::metadata(folder.path().join("b")).unwrap().len() <= 10);
    }
}
