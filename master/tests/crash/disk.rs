//! A disk that loses power: what was synced is there; of everything else any part may be, in any order the kernel may
//! have chosen to write it in.
//!
//! Of each block of a file, the newest synced content or that of any later write may be there (a page is written
//! whole, with all that was written to it up to then), independently of every other block. Of a file's sizes since it
//! was synced, any may be there. Each making, renaming and removing of a name may have happened or not, unless the
//! folder was synced after it; syncing a file does not make its name durable (POSIX promises no more).

use super::trace::{Act, Call};
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

#[derive(Default)]
struct File {
    durable: Vec<u8>,
    /// Not synced yet, in order.
    pending: Vec<Edit>,
}

enum Edit {
    Write { offset: usize, data: Vec<u8> },
    Resize(usize),
}

#[derive(Clone, Copy, PartialEq)]
enum Node {
    Folder(usize),
    File(usize),
}

/// A name in a folder.
type Name = (usize, OsString);
type Names = BTreeMap<Name, Node>;

enum Naming {
    Link(Name, Node),
    Unlink(Name),
    Rename(Name, Name, Node),
}

impl Naming {
    fn folder(&self) -> usize {
        match self {
            Self::Link(name, _) | Self::Unlink(name) => name.0,
            Self::Rename(from, to, _) => {
                assert_eq!(from.0, to.0, "moves between folders are not modelled");
                to.0
            }
        }
    }

    fn apply(&self, names: &mut Names) {
        match self {
            Self::Link(name, node) => drop(names.insert(name.clone(), *node)),
            Self::Unlink(name) => drop(names.remove(name)),
            Self::Rename(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

/// The disk below one folder, which itself is durable.
pub struct Disk {
    root: PathBuf,
    block: usize,
    files: Vec<File>,
    /// Number 0 is `root`.
    folders: usize,
    /// As processes see it.
    names: Names,
    durable_names: Names,
    pending_names: Vec<Naming>,
    /// For each sync that has begun: what it will cover.
    syncs: BTreeMap<usize, Cover>,
}

enum Cover {
    File(usize, usize),
    Folder(usize, usize),
}

impl Disk {
    /// The disk below `root`. `block`: what the device writes whole, in bytes.
    pub fn new(root: &Path, block: usize) -> Self {
        Self {
            root: root.to_owned(),
            block,
            files: Vec::new(),
            folders: 1,
            names: Names::new(),
            durable_names: Names::new(),
            pending_names: Vec::new(),
            syncs: BTreeMap::new(),
        }
    }

    /// What a path leads to at present.
    fn find(&self, path: &Path) -> Option<Node> {
        let below = path.strip_prefix(&self.root).expect("a path below the root");
        below.iter().try_fold(Node::Folder(0), |node, name| match node {
            Node::Folder(folder) => self.names.get(&(folder, name.to_owned())).copied(),
            Node::File(_) => None,
        })
    }

    /// Folder and name of a path.
    fn place(&self, path: &Path) -> Name {
        let folder = path.parent().and_then(|above| self.find(above));
        let (Some(Node::Folder(folder)), Some(name)) = (folder, path.file_name()) else {
            panic!("the folder of {} was never made", path.display());
        };
        (folder, name.to_owned())
    }

    /// A call begins: a sync covers what had ended by now.
    pub fn begin(&mut self, call: &Call) {
        if let Act::Sync { path } = &call.act {
            let cover = match self.find(path) {
                Some(Node::File(file)) => Cover::File(file, self.files[file].pending.len()),
                Some(Node::Folder(folder)) => Cover::Folder(folder, self.pending_names.len()),
                None => return,
            };
            self.syncs.insert(call.begin, cover);
        }
    }

    /// A call has ended, or (in a disk that is about to lose power) may have.
    pub fn end(&mut self, call: &Call) {
        match &call.act {
            Act::Open { path, create, truncate } => match self.find(path) {
                None if *create => {
                    self.files.push(File::default());
                    self.name(Naming::Link(self.place(path), Node::File(self.files.len() - 1)));
                }
                Some(Node::File(file)) if *truncate => self.files[file].pending.push(Edit::Resize(0)),
                _ => {}
            },
            Act::Write { path, offset, data } => {
                let edit = Edit::Write { offset: *offset as usize, data: data.clone() };
                self.edit(path, edit);
            }
            Act::Append { path, data } => {
                let end = match self.find(path) {
                    Some(Node::File(file)) => self.files[file].size(),
                    _ => 0,
                };
                self.edit(path, Edit::Write { offset: end, data: data.clone() });
            }
            Act::Resize { path, size } => self.edit(path, Edit::Resize(*size as usize)),
            Act::MakeDir { path } => {
                self.folders += 1;
                self.name(Naming::Link(self.place(path), Node::Folder(self.folders - 1)));
            }
            Act::Rename { from, to } => {
                let node = self.find(from).unwrap_or_else(|| panic!("{} is not there", from.display()));
                self.name(Naming::Rename(self.place(from), self.place(to), node));
            }
            Act::Unlink { path } => self.name(Naming::Unlink(self.place(path))),
            Act::Sync { .. } => match self.syncs.remove(&call.begin) {
                Some(Cover::File(file, edits)) => self.sync_file(file, edits),
                Some(Cover::Folder(folder, count)) => self.sync_folder(folder, count),
                None => {}
            },
            Act::Say { .. } => {}
        }
    }

    fn edit(&mut self, path: &Path, edit: Edit) {
        match self.find(path) {
            Some(Node::File(file)) => self.files[file].pending.push(edit),
            // strace says so of a file that is open and has no name any more.
            _ => assert!(path.to_string_lossy().ends_with("(deleted)"), "{} was never made", path.display()),
        }
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.pending_names.push(naming);
    }

    fn sync_file(&mut self, file: usize, edits: usize) {
        let synced = self.files[file].sync(edits);
        // Another sync of this file that is under way counted edits that are done now.
        for cover in self.syncs.values_mut() {
            if let Cover::File(other, count) = cover
                && *other == file
            {
                *count = count.saturating_sub(synced);
            }
        }
    }

    fn sync_folder(&mut self, folder: usize, count: usize) {
        let mut synced = 0;
        for (n, naming) in std::mem::take(&mut self.pending_names).into_iter().enumerate() {
            if n < count && naming.folder() == folder {
                naming.apply(&mut self.durable_names);
                synced += 1;
            } else {
                self.pending_names.push(naming);
            }
        }
        // Syncs of folders that are under way counted names that are done now: they cover less, never more.
        for cover in self.syncs.values_mut() {
            if let Cover::Folder(_, count) = cover {
                *count = count.saturating_sub(synced);
            }
        }
    }

    /// What is there after the power came back: all folders, and the files with their content.
    pub fn after_power_loss(&self, random: &mut StdRng) -> (Vec<PathBuf>, BTreeMap<PathBuf, Vec<u8>>) {
        let loss = [0.0, 0.05, 0.5, 0.95, 1.0][random.random_range(0..5)];
        let mut names = self.durable_names.clone();
        for naming in &self.pending_names {
            if !random.random_bool(loss) {
                naming.apply(&mut names);
            }
        }
        let (mut folders, mut files) = (Vec::new(), BTreeMap::new());
        let mut reached = vec![(0, PathBuf::new())];
        // What is in a folder whose name is lost is lost with it.
        while let Some((folder, path)) = reached.pop() {
            for ((_, name), node) in names.iter().filter(|((above, _), _)| *above == folder) {
                match node {
                    Node::Folder(inner) => {
                        reached.push((*inner, path.join(name)));
                        folders.push(path.join(name));
                    }
                    Node::File(file) => {
                        files.insert(path.join(name), self.files[*file].lose(self.block, loss, random));
                    }
                }
            }
        }
        (folders, files)
    }
}

impl File {
    /// As processes see it.
    fn size(&self) -> usize {
        self.pending.iter().fold(self.durable.len(), |size, edit| edit.size(size))
    }

    fn sync(&mut self, edits: usize) -> usize {
        let synced = edits.min(self.pending.len());
        for edit in self.pending.drain(..synced) {
            edit.apply(&mut self.durable);
        }
        synced
    }

    fn lose(&self, block: usize, loss: f64, random: &mut StdRng) -> Vec<u8> {
        let mut sizes = vec![self.durable.len()];
        for edit in &self.pending {
            sizes.push(edit.size(sizes[sizes.len() - 1]));
        }
        let longest = sizes.iter().copied().max().unwrap_or(0);
        let mut content = self.durable.clone();
        content.resize(longest, 0);
        // Which edits touch each block.
        let mut touched: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (n, edit) in self.pending.iter().enumerate() {
            for block in edit.blocks(block, longest) {
                touched.entry(block).or_default().push(n);
            }
        }
        for (number, edits) in touched {
            let kept = if random.random_bool(loss) { random.random_range(0..edits.len()) } else { edits.len() };
            let range = number * block..((number + 1) * block).min(longest);
            for n in &edits[..kept] {
                self.pending[*n].apply_within(&mut content, range.clone());
            }
        }
        let kept = if random.random_bool(loss) { random.random_range(0..sizes.len()) } else { sizes.len() - 1 };
        content.resize(sizes[kept], 0);
        content
    }
}

impl Edit {
    fn size(&self, before: usize) -> usize {
        match self {
            Self::Write { offset, data } => before.max(offset + data.len()),
            Self::Resize(size) => *size,
        }
    }

    fn apply(&self, content: &mut Vec<u8>) {
        content.resize(self.size(content.len()), 0);
        let all = 0..content.len();
        self.apply_within(content, all);
    }

    /// Only what it does to `range`. A file that was cut reads as zeros where it grows again.
    fn apply_within(&self, content: &mut [u8], range: std::ops::Range<usize>) {
        match self {
            Self::Write { offset, data } => {
                let start = range.start.max(*offset);
                let end = range.end.min(offset + data.len());
                if start < end {
                    content[start..end].copy_from_slice(&data[start - offset..end - offset]);
                }
            }
            Self::Resize(size) => {
                if *size < range.end {
                    content[range.start.max(*size)..range.end].fill(0);
                }
            }
        }
    }

    fn blocks(&self, block: usize, longest: usize) -> std::ops::Range<usize> {
        match self {
            Self::Write { data, .. } if data.is_empty() => 0..0,
            Self::Write { offset, data } => offset / block..(offset + data.len()).div_ceil(block),
            Self::Resize(size) => size / block..longest.div_ceil(block),
        }
    }
}
