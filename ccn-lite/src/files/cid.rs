//! CIDv0 of a file, computed while it streams, exactly as `ipfs add` does by default:
//! UnixFS in dag-pb, 256 KiB chunks, balanced tree of width 174, sha2-256.

use sha2::{Digest, Sha256};

const CHUNK: usize = 256 * 1024;
const WIDTH: usize = 174;
/// UnixFS `Data.Type` of a file.
const TYPE_FILE: u64 = 2;
/// Multihash prefix: sha2-256, 32 bytes.
const SHA2_256: [u8; 2] = [0x12, 0x20];

#[derive(Clone)]
struct Link {
    multihash: [u8; 34],
    /// Size of the encoded subtree.
    tree_size: u64,
    /// Size of the file content below.
    file_size: u64,
}

/// Incremental CIDv0 of one file.
#[derive(Default)]
pub struct CidHasher {
    chunk: Vec<u8>,
    levels: Vec<Vec<Link>>,
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn field_varint(out: &mut Vec<u8>, number: u8, value: u64) {
    out.push(number << 3);
    varint(out, value);
}

fn field_bytes(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn link_to(block: &[u8], children: u64, file_size: u64) -> Link {
    let mut multihash = [0; 34];
    multihash[..2].copy_from_slice(&SHA2_256);
    multihash[2..].copy_from_slice(&Sha256::digest(block));
    Link {
        multihash,
        tree_size: block.len() as u64 + children,
        file_size,
    }
}

fn leaf(chunk: &[u8]) -> Link {
    let mut unixfs = Vec::with_capacity(chunk.len() + 16);
    field_varint(&mut unixfs, 1, TYPE_FILE);
    if !chunk.is_empty() {
        field_bytes(&mut unixfs, 2, chunk);
    }
    field_varint(&mut unixfs, 3, chunk.len() as u64);
    let mut block = Vec::with_capacity(unixfs.len() + 8);
    field_bytes(&mut block, 1, &unixfs);
    link_to(&block, 0, chunk.len() as u64)
}

fn node(children: &[Link]) -> Link {
    let mut block = Vec::new();
    let mut unixfs = Vec::new();
    let file_size = children.iter().map(|c| c.file_size).sum();
    field_varint(&mut unixfs, 1, TYPE_FILE);
    field_varint(&mut unixfs, 3, file_size);
    for child in children {
        let mut link = Vec::with_capacity(64);
        field_bytes(&mut link, 1, &child.multihash);
        field_bytes(&mut link, 2, b"");
        field_varint(&mut link, 3, child.tree_size);
        field_bytes(&mut block, 2, &link);
        field_varint(&mut unixfs, 4, child.file_size);
    }
    field_bytes(&mut block, 1, &unixfs);
    let below = children.iter().map(|c| c.tree_size).sum();
    link_to(&block, below, file_size)
}

impl CidHasher {
    /// Takes the next bytes of the file.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let take = bytes.len().min(CHUNK - self.chunk.len());
            self.chunk.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if self.chunk.len() == CHUNK {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        let link = leaf(&self.chunk);
        self.chunk.clear();
        self.push(0, link);
    }

    fn push(&mut self, level: usize, link: Link) {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        self.levels[level].push(link);
        if self.levels[level].len() == WIDTH {
            let full = std::mem::take(&mut self.levels[level]);
            self.push(level + 1, node(&full));
        }
    }

    /// The CID, base58 text starting with `Qm`.
    pub fn finish(mut self) -> String {
        if !self.chunk.is_empty() || self.levels.is_empty() {
            self.flush();
        }
        let mut level = 0;
        loop {
            let links = std::mem::take(&mut self.levels[level]);
            let top = self.levels[level + 1..].iter().all(Vec::is_empty);
            match links.as_slice() {
                [root] if top => return bs58::encode(root.multihash).into_string(),
                [] => {}
                links => self.push(level + 1, node(links)),
            }
            level += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cid(bytes: &[u8]) -> String {
        let mut hasher = CidHasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    #[test]
    fn known_vectors_of_small_files() {
        assert_eq!(cid(b""), "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH");
        assert_eq!(
            cid(b"hello world"),
            "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD"
        );
        assert_eq!(
            cid(b"hello world\n"),
            "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o"
        );
    }

    #[test]
    fn slicing_of_the_input_does_not_matter() {
        let data: Vec<u8> = (0..CHUNK * 3 + 17).map(|i| (i % 251) as u8).collect();
        let mut hasher = CidHasher::default();
        for piece in data.chunks(1000) {
            hasher.update(piece);
        }
        assert_eq!(hasher.finish(), cid(&data));
    }

    #[test]
    fn tree_grows_a_level_past_one_full_node() {
        let mut full = CidHasher::default();
        let mut over = CidHasher::default();
        let chunk = vec![0; CHUNK];
        for _ in 0..WIDTH {
            full.update(&chunk);
            over.update(&chunk);
        }
        over.update(b"x");
        assert_eq!(full.levels.iter().map(Vec::len).collect::<Vec<_>>(), [0, 1]);
        assert_ne!(full.finish(), over.finish());
    }
}
