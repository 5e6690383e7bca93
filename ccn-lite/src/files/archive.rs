//! DAGs brought as archives: checked block by block, walked, and kept in a canonical form.
//!
//! Comes in: a CARv1 file written by a stranger. Goes out: the bytes of a file, or an archive that holds a directory
//! completely and nothing else, blocks in the order in which a walk meets them first.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::car::{self, CarError, Reader};
use super::cid::{Cid, Codec};
use super::dagpb::{Kind, MalformedNode, Node};

/// Blocks an archive may have: their index is held in memory.
const MAX_BLOCKS: usize = 500_000;
/// Links that follow one another.
const MAX_DEPTH: usize = 128;
/// Entries a directory may show, counting what stands in it twice.
const MAX_ENTRIES: u64 = 1_000_000;
/// Hexadecimal digits before the name in a shard of width 256.
const SHARD_WIDTH: u64 = 256;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be read.
    #[error(transparent)]
    Car(#[from] CarError),
    /// A block is not what its name says.
    #[error("block {0} does not match its CID")]
    Mismatch(Cid),
    /// It has too many blocks.
    #[error("archive has more than {MAX_BLOCKS} blocks")]
    TooManyBlocks,
    /// A block that is linked to is not there.
    #[error("block {0} is missing")]
    Missing(Cid),
    /// A block is no UnixFS node.
    #[error("block {cid} is no file and no directory: {source}")]
    Node {
        /// The block.
        cid: Cid,
        /// Why.
        #[source]
        source: MalformedNode,
    },
    /// A node breaks a rule.
    #[error("block {cid}: {reason}")]
    Rule {
        /// The block.
        cid: Cid,
        /// The rule.
        reason: &'static str,
    },
    /// What it stands for is larger than allowed.
    #[error("content exceeds the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// Disk trouble.
    #[error("cannot read or write")]
    Io(#[from] io::Error),
}

/// An archive with an index of its blocks.
pub struct Archive {
    file: File,
    index: HashMap<[u8; 32], (u64, u32)>,
    root: Cid,
}

/// What a DAG is, measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// What its root is.
    pub kind: Kind,
    /// Bytes of all files, those that stand in it twice counted twice.
    pub content: u64,
    /// Bytes of all blocks, counted alike.
    pub tree: u64,
    /// Files and directories, counted alike.
    entries: u64,
}

/// The bytes of a file, block by block.
pub struct FileReader<'a> {
    archive: &'a Archive,
    /// Blocks to come, the next one last.
    waiting: Vec<Cid>,
    data: Vec<u8>,
    at: usize,
}

impl Read for FileReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.data.len() {
            let Some(cid) = self.waiting.pop() else {
                return Ok(0);
            };
            let node = self.archive.node(&cid).map_err(|error| match error {
                ArchiveError::Io(error) => error,
                error => io::Error::new(io::ErrorKind::InvalidData, error),
            })?;
            self.waiting
                .extend(node.links.into_iter().rev().map(|link| link.cid));
            (self.data, self.at) = (node.data, 0);
        }
        let read = (&self.data[self.at..]).read(out)?;
        self.at += read;
        Ok(read)
    }
}

/// A place a walk of a directory comes by.
pub enum Entry<'a> {
    /// A directory.
    Directory,
    /// A file with its size in bytes.
    File(FileReader<'a>, u64),
    /// A symbolic link to this path.
    Symlink(&'a [u8]),
}

impl Archive {
    /// Opens `path`, checking every block.
    ///
    /// # Errors
    /// When the archive is broken, or a block does not match its name.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        Self::index(File::open(path)?, true)
    }

    /// Opens an archive that this program wrote.
    ///
    /// # Errors
    /// When the archive is broken.
    pub fn open_trusted(path: &Path) -> Result<Self, ArchiveError> {
        Self::index(File::open(path)?, false)
    }

    fn index(file: File, check: bool) -> Result<Self, ArchiveError> {
        let mut reader = Reader::new(BufReader::with_capacity(1 << 18, &file))?;
        let root = reader.root;
        let mut index = HashMap::new();
        while let Some(block) = reader.next_block()? {
            if check && !block.cid.names(&block.bytes) {
                return Err(ArchiveError::Mismatch(block.cid));
            }
            let place = (block.at, block.bytes.len() as u32);
            index.insert(*block.cid.digest(), place);
            if index.len() > MAX_BLOCKS {
                return Err(ArchiveError::TooManyBlocks);
            }
        }
        Ok(Self { file, index, root })
    }

    /// The root.
    pub fn root(&self) -> Cid {
        self.root
    }

    fn block(&self, cid: &Cid) -> Result<Vec<u8>, ArchiveError> {
        let (at, length) = self
            .index
            .get(cid.digest())
            .ok_or(ArchiveError::Missing(*cid))?;
        let mut bytes = vec![0; *length as usize];
        self.file.read_exact_at(&mut bytes, *at)?;
        Ok(bytes)
    }

    fn node(&self, cid: &Cid) -> Result<Node, ArchiveError> {
        let bytes = self.block(cid)?;
        match cid.codec() {
            Codec::Raw => Ok(Node::file(bytes, Vec::new(), Vec::new())),
            Codec::DagPb => {
                Node::decode(&bytes).map_err(|source| ArchiveError::Node { cid: *cid, source })
            }
        }
    }

    /// Walks everything below the root once, checking that it is complete and sane.
    ///
    /// # Errors
    /// When it is not, or stands for more than `limit` bytes.
    pub fn measure(&self, limit: u64) -> Result<Measure, ArchiveError> {
        let measure = self.measure_node(&self.root, 0, limit, &mut HashMap::new())?;
        if measure.entries > MAX_ENTRIES {
            return Err(ArchiveError::Rule {
                cid: self.root,
                reason: "too many entries",
            });
        }
        Ok(measure)
    }

    fn measure_node(
        &self,
        cid: &Cid,
        depth: usize,
        limit: u64,
        known: &mut HashMap<Cid, Measure>,
    ) -> Result<Measure, ArchiveError> {
        if let Some(measure) = known.get(cid) {
            return Ok(*measure);
        }
        let rule = |reason| ArchiveError::Rule { cid: *cid, reason };
        if depth > MAX_DEPTH {
            return Err(rule("nested too deeply"));
        }
        let node = self.node(cid)?;
        if node.kind == Kind::Shard && node.fanout != SHARD_WIDTH {
            return Err(rule("shard of an unusual width"));
        }
        if node.kind == Kind::Symlink && !node.links.is_empty() {
            return Err(rule("symbolic link with children"));
        }
        let mut measure = Measure {
            kind: node.kind,
            content: match node.kind {
                Kind::File | Kind::Raw => node.data.len() as u64,
                _ => 0,
            },
            tree: self
                .index
                .get(cid.digest())
                .map_or(0, |place| place.1.into()),
            entries: 1,
        };
        for (position, link) in node.links.iter().enumerate() {
            let child = self.measure_node(&link.cid, depth + 1, limit, known)?;
            match node.kind {
                Kind::Directory | Kind::Shard => {
                    let is_part = check_name(&node, &link.name).map_err(rule)?;
                    if is_part && child.kind != Kind::Shard {
                        return Err(rule("entry without a name"));
                    }
                    measure.entries = measure.entries.saturating_add(child.entries);
                }
                _ if !matches!(child.kind, Kind::File | Kind::Raw) => {
                    return Err(rule("part of a file that is no file"));
                }
                _ if node.block_sizes.get(position) != Some(&child.content) => {
                    return Err(rule("wrong size of a part"));
                }
                _ => {}
            }
            measure.content = measure.content.saturating_add(child.content);
            measure.tree = measure.tree.saturating_add(child.tree);
        }
        if measure.content > limit {
            return Err(ArchiveError::TooLarge { limit });
        }
        known.insert(*cid, measure);
        Ok(measure)
    }

    /// The bytes of the file `cid`, which was measured.
    pub fn file(&self, cid: Cid) -> FileReader<'_> {
        FileReader {
            archive: self,
            waiting: vec![cid],
            data: Vec::new(),
            at: 0,
        }
    }

    /// Shows every entry of the directory with its path, parents first.
    ///
    /// # Errors
    /// When a block is missing, or what `show` refuses.
    pub fn walk(
        &self,
        show: &mut dyn FnMut(&str, Entry<'_>) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let mut sizes = HashMap::new();
        self.measure_node(&self.root, 0, u64::MAX, &mut sizes)?;
        self.walk_node(&self.root, &self.root.to_string(), &sizes, show)
    }

    fn walk_node(
        &self,
        cid: &Cid,
        path: &str,
        sizes: &HashMap<Cid, Measure>,
        show: &mut dyn FnMut(&str, Entry<'_>) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let node = self.node(cid)?;
        match node.kind {
            Kind::File | Kind::Raw => {
                let size = sizes.get(cid).map_or(0, |measure| measure.content);
                return show(path, Entry::File(self.file(*cid), size));
            }
            Kind::Symlink => return show(path, Entry::Symlink(&node.data)),
            Kind::Directory | Kind::Shard => show(path, Entry::Directory)?,
        }
        self.walk_links(&node, path, sizes, show)
    }

    fn walk_links(
        &self,
        node: &Node,
        path: &str,
        sizes: &HashMap<Cid, Measure>,
        show: &mut dyn FnMut(&str, Entry<'_>) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        for link in &node.links {
            let name = match node.kind {
                // Two digits are the place in the shard; nothing after them means a shard below.
                Kind::Shard => &link.name[2..],
                _ => link.name.as_str(),
            };
            if name.is_empty() {
                self.walk_links(&self.node(&link.cid)?, path, sizes, show)?;
            } else {
                self.walk_node(&link.cid, &format!("{path}/{name}"), sizes, show)?;
            }
        }
        Ok(())
    }

    /// Writes the canonical archive: the root and what it needs, each block once.
    ///
    /// # Errors
    /// When a block is missing, or `out` refuses.
    pub fn write_canonical(&self, out: &mut impl Write) -> Result<(), ArchiveError> {
        car::write_header(out, &self.root)?;
        let mut written = std::collections::HashSet::new();
        let mut waiting = vec![self.root];
        while let Some(cid) = waiting.pop() {
            if !written.insert(cid) {
                continue;
            }
            car::write_block(out, &cid, &self.block(&cid)?)?;
            if cid.codec() == Codec::DagPb {
                let links = self.node(&cid)?.links;
                waiting.extend(links.into_iter().rev().map(|link| link.cid));
            }
        }
        Ok(())
    }
}

/// Names become paths on the disks of those who unpack, so they are held to what one entry can be called. Tells whether
/// the name is only a place, that of a part of a shard.
fn check_name(node: &Node, name: &str) -> Result<bool, &'static str> {
    let name = if node.kind == Kind::Shard {
        let (place, name) = name
            .split_at_checked(2)
            .ok_or("entry of a shard without a place")?;
        if !place.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err("entry of a shard without a place");
        }
        if name.is_empty() {
            return Ok(true);
        }
        name
    } else {
        name
    };
    if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
        return Err("a name no directory entry can have");
    }
    Ok(false)
}
