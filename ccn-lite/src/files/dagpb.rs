//! dag-pb nodes with UnixFS data: how files and directories are written as blocks.

use super::cid::Cid;

/// What a node stands for, UnixFS `Data.Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes, as old tools write leaves.
    Raw,
    /// A directory.
    Directory,
    /// A file or a part of one.
    File,
    /// A symbolic link.
    Symlink,
    /// A part of a directory too large for one block.
    Shard,
}

const KINDS: [(u64, Kind); 5] = [
    (0, Kind::Raw),
    (1, Kind::Directory),
    (2, Kind::File),
    (4, Kind::Symlink),
    (5, Kind::Shard),
];

/// A link to a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The child.
    pub cid: Cid,
    /// Its name in a directory; empty in a file.
    pub name: String,
    /// Bytes of all blocks below, as its writer says.
    pub tree_size: u64,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it stands for.
    pub kind: Kind,
    /// Bytes of the file that stand in the node itself, the target of a symbolic link, or the bit field of a shard.
    pub data: Vec<u8>,
    /// Bytes of the file below each link, as the writer says.
    pub block_sizes: Vec<u64>,
    /// Width of a shard.
    pub fanout: u64,
    /// Children.
    pub links: Vec<Link>,
}

/// A block that is no such node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed dag-pb block: {0}")]
pub struct MalformedNode(&'static str);

/// Appends an unsigned LEB128 number.
pub fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes an unsigned LEB128 number from the front of `bytes`.
pub fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(first & 0x7f);
        if shift == 63 && part > 1 {
            return None;
        }
        value |= part << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn write_number(out: &mut Vec<u8>, field: u8, value: u64) {
    out.push(field << 3);
    write_varint(out, value);
}

fn write_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Takes the next field of a protobuf message; `None` at its end.
fn read_field<'a>(bytes: &mut &'a [u8]) -> Result<Option<(u64, Field<'a>)>, MalformedNode> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let broken = || MalformedNode("truncated field");
    let key = read_varint(bytes).ok_or_else(broken)?;
    let field = match key & 7 {
        0 => Field::Number(read_varint(bytes).ok_or_else(broken)?),
        2 => {
            let length = read_varint(bytes).ok_or_else(broken)?;
            let length = usize::try_from(length).map_err(|_| broken())?;
            let (value, rest) = bytes.split_at_checked(length).ok_or_else(broken)?;
            *bytes = rest;
            Field::Bytes(value)
        }
        _ => return Err(MalformedNode("unknown wire type")),
    };
    Ok(Some((key >> 3, field)))
}

fn read_link(mut bytes: &[u8]) -> Result<Link, MalformedNode> {
    let (mut cid, mut name, mut tree_size) = (None, String::new(), 0);
    while let Some(field) = read_field(&mut bytes)? {
        match field {
            (1, Field::Bytes(hash)) => {
                cid =
                    Some(Cid::from_bytes(hash).map_err(|_| MalformedNode("unknown kind of link"))?);
            }
            (2, Field::Bytes(text)) => {
                name = String::from_utf8(text.to_vec())
                    .map_err(|_| MalformedNode("name is not UTF-8"))?;
            }
            (3, Field::Number(size)) => tree_size = size,
            _ => return Err(MalformedNode("unknown field of a link")),
        }
    }
    Ok(Link {
        cid: cid.ok_or(MalformedNode("link to nothing"))?,
        name,
        tree_size,
    })
}

impl Node {
    /// A node of a file.
    pub fn file(data: Vec<u8>, links: Vec<Link>, block_sizes: Vec<u64>) -> Self {
        Self {
            kind: Kind::File,
            data,
            block_sizes,
            fanout: 0,
            links,
        }
    }

    /// Reads a block.
    ///
    /// # Errors
    /// When it is no dag-pb node with UnixFS data.
    pub fn decode(mut block: &[u8]) -> Result<Self, MalformedNode> {
        let (mut links, mut data) = (Vec::new(), None);
        while let Some(field) = read_field(&mut block)? {
            match field {
                (2, Field::Bytes(link)) => links.push(read_link(link)?),
                (1, Field::Bytes(unixfs)) => data = Some(unixfs),
                _ => return Err(MalformedNode("unknown field")),
            }
        }
        let mut unixfs = data.ok_or(MalformedNode("no UnixFS data"))?;
        let (mut kind, mut data, mut block_sizes, mut fanout) = (None, Vec::new(), Vec::new(), 0);
        while let Some(field) = read_field(&mut unixfs)? {
            match field {
                (1, Field::Number(code)) => {
                    kind = KINDS.iter().find(|(known, _)| *known == code);
                }
                (2, Field::Bytes(bytes)) => data = bytes.to_vec(),
                (4, Field::Number(size)) => block_sizes.push(size),
                (4, Field::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        let size = read_varint(&mut packed);
                        block_sizes.push(size.ok_or(MalformedNode("truncated sizes"))?);
                    }
                }
                (6, Field::Number(width)) => fanout = width,
                // The whole size follows from the parts; hash type, mode and time are of no use here.
                _ => {}
            }
        }
        let (_, kind) = kind.ok_or(MalformedNode("unknown type"))?;
        if matches!(kind, Kind::File | Kind::Raw) && block_sizes.len() != links.len() {
            return Err(MalformedNode("not as many sizes as links"));
        }
        Ok(Self {
            kind: *kind,
            data,
            block_sizes,
            fanout,
            links,
        })
    }

    /// Writes a node of a file or a plain directory as a block, byte for byte as the reference implementation does.
    pub fn encode(&self) -> Vec<u8> {
        let mut unixfs = Vec::with_capacity(self.data.len() + 16 + self.block_sizes.len() * 4);
        let is_file = self.kind != Kind::Directory;
        write_number(&mut unixfs, 1, if is_file { 2 } else { 1 });
        if !self.data.is_empty() {
            write_bytes(&mut unixfs, 2, &self.data);
        }
        if is_file {
            let below: u64 = self.block_sizes.iter().sum();
            write_number(&mut unixfs, 3, self.data.len() as u64 + below);
            for size in &self.block_sizes {
                write_number(&mut unixfs, 4, *size);
            }
        }
        let mut block = Vec::with_capacity(unixfs.len() + self.links.len() * 56);
        for link in &self.links {
            let mut bytes = Vec::with_capacity(56);
            write_bytes(&mut bytes, 1, &link.cid.to_bytes());
            write_bytes(&mut bytes, 2, link.name.as_bytes());
            write_number(&mut bytes, 3, link.tree_size);
            write_bytes(&mut block, 2, &bytes);
        }
        write_bytes(&mut block, 1, &unixfs);
        block
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::cid::{Codec, Version};
    use super::*;

    proptest! {
        #[test]
        fn any_block_is_refused_or_read(block in any::<Vec<u8>>()) {
            let _ = Node::decode(&block);
        }

        #[test]
        fn what_is_written_reads_back(
            data in any::<Vec<u8>>(),
            children in prop::collection::vec((any::<[u8; 4]>(), any::<u32>(), any::<u32>()), 0..9),
        ) {
            let link = |(seed, tree_size, _): &([u8; 4], u32, u32)| Link {
                cid: Cid::of(Version::V1, Codec::Raw, seed),
                name: String::new(),
                tree_size: u64::from(*tree_size),
            };
            let sizes = children.iter().map(|(_, _, size)| u64::from(*size)).collect();
            let node = Node::file(data, children.iter().map(link).collect(), sizes);
            prop_assert_eq!(Node::decode(&node.encode()), Ok(node));
        }

        #[test]
        fn numbers_read_back_and_any_bytes_are_safe(value in any::<u64>(), bytes in any::<Vec<u8>>()) {
            let mut out = Vec::new();
            write_varint(&mut out, value);
            prop_assert_eq!(read_varint(&mut out.as_slice()), Some(value));
            let _ = read_varint(&mut bytes.as_slice());
        }
    }
}
