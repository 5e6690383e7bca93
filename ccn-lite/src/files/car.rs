//! CARv1: a root and blocks in one file, as `ipfs dag export` writes them.

use std::io::{self, Read, Write};

use super::cid::Cid;
use super::dagpb::{read_varint, write_varint};

/// Longest header: one root takes some forty bytes.
const MAX_HEADER: u64 = 1024;
/// Longest block: the network exchanges none above two MiB.
pub const MAX_BLOCK: usize = 2 << 20;
/// Longest CID in front of a block, of any kind.
const MAX_CID: usize = 128;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CarError {
    /// Not an archive of version 1 with one root.
    #[error("not a CARv1 archive with one root: {0}")]
    Header(&'static str),
    /// A block is broken.
    #[error("malformed block at byte {at}: {reason}")]
    Block {
        /// Where its frame begins.
        at: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// The file cannot be read.
    #[error("cannot read the archive")]
    Io(#[from] io::Error),
}

/// An archive being read.
pub struct Reader<R> {
    input: R,
    /// Bytes read.
    at: u64,
    /// The block this archive is about.
    pub root: Cid,
}

/// A block of an archive.
pub struct Block {
    /// Its name; not yet checked against the bytes.
    pub cid: Cid,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Where the bytes begin in the archive.
    pub at: u64,
}

/// Reads a length; `None` when the input ends before it.
fn read_length(input: &mut impl Read, at: &mut u64) -> Result<Option<u64>, CarError> {
    let start = *at;
    let mut bytes = [0; 10];
    for read in 0..bytes.len() {
        if input.read(&mut bytes[read..=read])? == 0 {
            return match read {
                0 => Ok(None),
                _ => Err(CarError::Block {
                    at: start,
                    reason: "truncated",
                }),
            };
        }
        *at += 1;
        if bytes[read] & 0x80 == 0 {
            return read_varint(&mut &bytes[..=read])
                .map(Some)
                .ok_or(CarError::Block {
                    at: start,
                    reason: "length too large",
                });
        }
    }
    Err(CarError::Block {
        at: start,
        reason: "length too large",
    })
}

/// Takes a CBOR head from the front of `bytes`: major type and argument.
fn read_cbor(bytes: &mut &[u8]) -> Option<(u8, u64)> {
    let (first, rest) = bytes.split_first()?;
    let (major, info) = (first >> 5, first & 0x1f);
    let width = match info {
        0..=23 => 0,
        24..=27 => 1 << (info - 24),
        _ => return None,
    };
    let (argument, rest) = rest.split_at_checked(width)?;
    *bytes = rest;
    let argument = argument
        .iter()
        .fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    Some((
        major,
        if width == 0 {
            u64::from(info)
        } else {
            argument
        },
    ))
}

fn read_header(mut bytes: &[u8]) -> Result<Cid, CarError> {
    let broken = || CarError::Header("malformed header");
    let input = &mut bytes;
    let Some((5, entries)) = read_cbor(input) else {
        return Err(broken());
    };
    let (mut root, mut version) = (None, None);
    for _ in 0..entries {
        let key = match read_cbor(input).ok_or_else(broken)? {
            (3, length) => take(input, length).ok_or_else(broken)?,
            _ => return Err(broken()),
        };
        match (key, read_cbor(input).ok_or_else(broken)?) {
            (b"version", (0, number)) => version = Some(number),
            (b"roots", (4, 1)) => {
                let cid = match (read_cbor(input), read_cbor(input)) {
                    (Some((6, 42)), Some((2, length))) => take(input, length).ok_or_else(broken)?,
                    _ => return Err(broken()),
                };
                let cid = cid.strip_prefix(&[0]).ok_or_else(broken)?;
                let cid = Cid::from_bytes(cid)
                    .map_err(|_| CarError::Header("the root is neither raw nor dag-pb"))?;
                root = Some(cid);
            }
            (b"roots", (4, _)) => return Err(CarError::Header("it must have exactly one root")),
            _ => return Err(broken()),
        }
    }
    match version {
        Some(1) => root.ok_or(CarError::Header("it must have exactly one root")),
        _ => Err(CarError::Header("unknown version")),
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (value, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(value)
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// When there is none of version 1 with one root.
    pub fn new(mut input: R) -> Result<Self, CarError> {
        let mut at = 0;
        let length = read_length(&mut input, &mut at)?.ok_or(CarError::Header("empty"))?;
        if length > MAX_HEADER {
            return Err(CarError::Header("header too long"));
        }
        let mut header = Vec::new();
        let read = (&mut input).take(length).read_to_end(&mut header)?;
        if (read as u64) < length {
            return Err(CarError::Header("truncated"));
        }
        Ok(Self {
            root: read_header(&header)?,
            input,
            at: at + length,
        })
    }

    /// The next block; `None` at the end. Blocks of kinds this node does not know are an error.
    ///
    /// # Errors
    /// When the archive is broken there.
    pub fn next_block(&mut self) -> Result<Option<Block>, CarError> {
        let start = self.at;
        let broken = |reason| CarError::Block { at: start, reason };
        let Some(length) = read_length(&mut self.input, &mut self.at)? else {
            return Ok(None);
        };
        if length > (MAX_BLOCK + MAX_CID) as u64 {
            return Err(broken("too long"));
        }
        let mut frame = Vec::with_capacity(length as usize);
        (&mut self.input).take(length).read_to_end(&mut frame)?;
        if (frame.len() as u64) < length {
            return Err(broken("truncated"));
        }
        let (cid, size) =
            Cid::from_prefix(&frame).map_err(|_| broken("neither raw nor dag-pb with sha2-256"))?;
        let at = self.at + size as u64;
        self.at += length;
        Ok(Some(Block {
            cid,
            bytes: frame.split_off(size),
            at,
        }))
    }
}

/// Writes a header.
///
/// # Errors
/// When `out` refuses.
pub fn write_header(out: &mut impl Write, root: &Cid) -> io::Result<()> {
    let cid = root.to_bytes();
    // {"roots": [42(h'00…')], "version": 1}
    let mut header = vec![0xa2, 0x65];
    header.extend_from_slice(b"roots");
    header.extend([0x81, 0xd8, 0x2a, 0x58, cid.len() as u8 + 1, 0]);
    header.extend(cid);
    header.push(0x67);
    header.extend_from_slice(b"version");
    header.push(1);
    let mut length = Vec::new();
    write_varint(&mut length, header.len() as u64);
    out.write_all(&length)?;
    out.write_all(&header)
}

/// Writes a block.
///
/// # Errors
/// When `out` refuses.
pub fn write_block(out: &mut impl Write, cid: &Cid, block: &[u8]) -> io::Result<()> {
    let cid = cid.to_bytes();
    let mut length = Vec::new();
    write_varint(&mut length, (cid.len() + block.len()) as u64);
    out.write_all(&length)?;
    out.write_all(&cid)?;
    out.write_all(block)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::cid::{Codec, Version};
    use super::*;

    type Blocks = Vec<(Cid, Vec<u8>)>;

    fn read(bytes: &[u8]) -> Result<(Cid, Blocks), CarError> {
        let mut reader = Reader::new(bytes)?;
        let mut blocks = Vec::new();
        while let Some(block) = reader.next_block()? {
            assert_eq!(
                &bytes[block.at as usize..][..block.bytes.len()],
                block.bytes
            );
            blocks.push((block.cid, block.bytes));
        }
        Ok((reader.root, blocks))
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(blocks in prop::collection::vec(any::<Vec<u8>>(), 1..6), v1 in any::<bool>()) {
            let version = if v1 { Version::V1 } else { Version::V0 };
            let blocks: Vec<_> = blocks
                .into_iter()
                .map(|block| (Cid::of(version, Codec::DagPb, &block), block))
                .collect();
            let mut car = Vec::new();
            write_header(&mut car, &blocks[0].0).unwrap();
            for (cid, block) in &blocks {
                write_block(&mut car, cid, block).unwrap();
            }
            prop_assert_eq!(read(&car).unwrap(), (blocks[0].0, blocks));
            car.pop();
            prop_assert!(read(&car).is_err());
        }

        #[test]
        fn any_bytes_are_safe_to_read(
            noise in any::<Vec<u8>>(), at in 0..70_usize, with in any::<u8>(), headed in any::<bool>(),
        ) {
            let cid = Cid::of(Version::V1, Codec::Raw, b"x");
            let mut car = Vec::new();
            if headed {
                write_header(&mut car, &cid).unwrap();
                write_block(&mut car, &cid, b"x").unwrap();
                if let Some(byte) = car.get_mut(at) {
                    *byte = with;
                }
            }
            car.extend(noise);
            let _ = read(&car);
        }
    }
}
