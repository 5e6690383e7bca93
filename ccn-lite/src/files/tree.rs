//! A file as a tree of blocks, built while its bytes stream by: 256 KiB chunks, a balanced tree of width 174, as the
//! reference implementation adds files by default.

use std::convert::Infallible;

use super::cid::{Cid, Codec, Version};
use super::dagpb::{Link, Node};

const CHUNK: usize = 256 * 1024;
const WIDTH: usize = 174;

/// How chunks and links are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Version of the CIDs of nodes.
    pub version: Version,
    /// Whether chunks are raw blocks rather than dag-pb nodes.
    pub raw_leaves: bool,
}

impl Layout {
    /// What `ipfs add` does.
    pub const V0: Self = Self {
        version: Version::V0,
        raw_leaves: false,
    };
    /// What `ipfs add --cid-version=1` does.
    pub const V1: Self = Self {
        version: Version::V1,
        raw_leaves: true,
    };
    /// Every layout, the usual ones first.
    pub const ALL: [Self; 4] = [
        Self::V0,
        Self::V1,
        Self {
            version: Version::V1,
            raw_leaves: false,
        },
        Self {
            version: Version::V0,
            raw_leaves: true,
        },
    ];
}

#[derive(Clone)]
struct Child {
    cid: Cid,
    /// Bytes of all blocks of the subtree.
    tree_size: u64,
    /// Bytes of the file below.
    file_size: u64,
}

/// A tree in the making. Its blocks go to a sink, children before parents.
pub struct TreeBuilder {
    layout: Layout,
    chunk: Vec<u8>,
    levels: Vec<Vec<Child>>,
}

impl TreeBuilder {
    /// An empty file.
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            chunk: Vec::new(),
            levels: Vec::new(),
        }
    }

    /// Takes the next bytes of the file.
    ///
    /// # Errors
    /// What the sink refuses.
    pub fn update<E>(
        &mut self,
        mut bytes: &[u8],
        sink: &mut impl FnMut(&Cid, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
            if self.chunk.len() == CHUNK {
                self.flush(sink)?;
            }
        }
        Ok(())
    }

    fn flush<E>(&mut self, sink: &mut impl FnMut(&Cid, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let file_size = self.chunk.len() as u64;
        let (codec, block) = if self.layout.raw_leaves {
            (Codec::Raw, std::mem::take(&mut self.chunk))
        } else {
            let data = std::mem::take(&mut self.chunk);
            (
                Codec::DagPb,
                Node::file(data, Vec::new(), Vec::new()).encode(),
            )
        };
        let cid = Cid::of(self.layout.version, codec, &block);
        sink(&cid, &block)?;
        let child = Child {
            cid,
            tree_size: block.len() as u64,
            file_size,
        };
        // The largest buffer here is kept for the next chunk.
        self.chunk = block;
        self.chunk.clear();
        self.push(0, child, sink)
    }

    fn push<E>(
        &mut self,
        level: usize,
        child: Child,
        sink: &mut impl FnMut(&Cid, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        self.levels[level].push(child);
        if self.levels[level].len() == WIDTH {
            let full = std::mem::take(&mut self.levels[level]);
            let parent = self.parent(&full, sink)?;
            self.push(level + 1, parent, sink)?;
        }
        Ok(())
    }

    fn parent<E>(
        &self,
        children: &[Child],
        sink: &mut impl FnMut(&Cid, &[u8]) -> Result<(), E>,
    ) -> Result<Child, E> {
        let links = children
            .iter()
            .map(|child| Link {
                cid: child.cid,
                name: String::new(),
                tree_size: child.tree_size,
            })
            .collect();
        let sizes = children.iter().map(|child| child.file_size).collect();
        let block = Node::file(Vec::new(), links, sizes).encode();
        let cid = Cid::of(self.layout.version, Codec::DagPb, &block);
        sink(&cid, &block)?;
        let below: u64 = children.iter().map(|child| child.tree_size).sum();
        Ok(Child {
            cid,
            tree_size: block.len() as u64 + below,
            file_size: children.iter().map(|child| child.file_size).sum(),
        })
    }

    /// No more bytes come: the root.
    ///
    /// # Errors
    /// What the sink refuses.
    pub fn finish<E>(
        mut self,
        sink: &mut impl FnMut(&Cid, &[u8]) -> Result<(), E>,
    ) -> Result<Cid, E> {
        if !self.chunk.is_empty() || self.levels.is_empty() {
            self.flush(sink)?;
        }
        let mut level = 0;
        loop {
            let children = std::mem::take(&mut self.levels[level]);
            let top = self.levels[level + 1..].iter().all(Vec::is_empty);
            match children.as_slice() {
                [root] if top => return Ok(root.cid),
                [] => {}
                children => {
                    let parent = self.parent(children, sink)?;
                    self.push(level + 1, parent, sink)?;
                }
            }
            level += 1;
        }
    }
}

/// The CID of a file whose blocks nobody keeps.
pub struct CidHasher(TreeBuilder);

fn nowhere(_: &Cid, _: &[u8]) -> Result<(), Infallible> {
    Ok(())
}

impl CidHasher {
    /// An empty file.
    pub fn new(layout: Layout) -> Self {
        Self(TreeBuilder::new(layout))
    }

    /// Takes the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        match self.0.update(bytes, &mut nowhere) {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }

    /// The CID of the file.
    pub fn finish(self) -> Cid {
        match self.0.finish(&mut nowhere) {
            Ok(cid) => cid,
            Err(never) => match never {},
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cid(layout: Layout, bytes: &[u8]) -> Cid {
        let mut hasher = CidHasher::new(layout);
        hasher.update(bytes);
        hasher.finish()
    }

    #[test]
    fn known_vectors_of_small_files() {
        for (bytes, text) in [
            (&b""[..], "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"),
            (
                b"hello world",
                "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD",
            ),
            (
                b"hello world\n",
                "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o",
            ),
        ] {
            assert_eq!(cid(Layout::V0, bytes).to_string(), text);
        }
    }

    #[test]
    fn tree_grows_a_level_past_one_full_node() {
        let mut full = TreeBuilder::new(Layout::V0);
        let mut over = TreeBuilder::new(Layout::V0);
        let chunk = vec![0; CHUNK];
        for _ in 0..WIDTH {
            full.update(&chunk, &mut nowhere).unwrap();
            over.update(&chunk, &mut nowhere).unwrap();
        }
        over.update(b"x", &mut nowhere).unwrap();
        assert_eq!(full.levels.iter().map(Vec::len).collect::<Vec<_>>(), [0, 1]);
        assert_ne!(full.finish(&mut nowhere), over.finish(&mut nowhere));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn slicing_of_the_input_does_not_matter(length in 0..CHUNK * 3, piece in 1..CHUNK * 2, layout in 0..4_usize) {
            let data: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let layout = Layout::ALL[layout];
            let mut hasher = CidHasher::new(layout);
            for piece in data.chunks(piece) {
                hasher.update(piece);
            }
            prop_assert_eq!(hasher.finish(), cid(layout, &data));
        }
    }
}
