//! From an image to a raw disk, cluster by cluster, in the order of the disk.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use ruzstd::decoding::StreamingDecoder;

use crate::clusters::{Place, Tables};
use crate::header::{Compression, Header, read_at_up_to};
use crate::{Error, Result, refuse};

/// Zeros are looked for, and left out, in pieces of this many bytes.
const BLOCK: usize = 4096;

/// Writes the disk of a qcow2 image to an empty file, sparse; returns the disk's size in bytes. A disk larger than
/// `max_size` bytes is refused before anything is written.
///
/// # Errors
/// [`Error`].
pub fn convert(image: &impl FileExt, disk: &File, max_size: u64) -> Result<u64> {
    let header = Header::read(image, max_size)?;
    disk.set_len(header.size).map_err(Error::Write)?;
    let size = header.cluster_size();
    let mut cluster = vec![0; size];
    let mut packed = Vec::new();
    let mut tables = Tables::new(image, &header);
    while let Some((index, place)) = tables.advance()? {
        let offset = index * size as u64;
        match place {
            Place::Hole => continue,
            Place::Plain(at) => plain(image, at, &mut cluster)?,
            Place::Compressed { offset: at, length } => {
                packed.resize(length, 0);
                let got = read_at_up_to(image, &mut packed, at)?;
                unpack(header.compression, &packed[..got], &mut cluster)
                    .map_err(|reason| Error::Compressed { offset, reason })?;
            }
        }
        // The last cluster may reach beyond the disk's end.
        let length = usize::try_from(header.size - offset).map_or(size, |left| left.min(size));
        write_sparse(disk, offset, &cluster[..length])?;
    }
    Ok(header.size)
}

/// Images need not end with a whole cluster; but each must begin within.
fn plain(image: &impl FileExt, at: u64, cluster: &mut [u8]) -> Result<()> {
    let got = read_at_up_to(image, cluster, at)?;
    if got == 0 {
        return refuse(
            "l2_entry",
            format!("the cluster at {at:#x} is beyond the end of the image"),
        );
    }
    cluster[got..].fill(0);
    Ok(())
}

/// Fills `cluster` exactly, or says why not.
fn unpack(
    compression: Compression,
    packed: &[u8],
    cluster: &mut [u8],
) -> std::result::Result<(), String> {
    match compression {
        Compression::Deflate => {
            let pieces = std::iter::once(packed);
            let length =
                miniz_oxide::inflate::decompress_slice_iter_to_slice(cluster, pieces, false, true)
                    .map_err(|status| format!("{status:?}"))?;
            if length == cluster.len() {
                Ok(())
            } else {
                Err(format!("holds {length} bytes"))
            }
        }
        Compression::Zstd => StreamingDecoder::new(packed)
            .map_err(|error| error.to_string())?
            .read_exact(cluster)
            .map_err(|error| error.to_string()),
    }
}

/// Writes what is not zero; the file reads as zeros where nothing has been written.
fn write_sparse(disk: &File, offset: u64, data: &[u8]) -> Result<()> {
    let mut run: Option<(u64, &[u8])> = None;
    let mut at = offset;
    for (number, block) in data.chunks(BLOCK).enumerate() {
        let begin = number * BLOCK;
        if block.iter().any(|byte| *byte != 0) {
            let (start, from) =
                run.map_or((at, begin), |(start, bytes)| (start, begin - bytes.len()));
            run = Some((start, &data[from..begin + block.len()]));
        } else if let Some((start, bytes)) = run.take() {
            disk.write_all_at(bytes, start).map_err(Error::Write)?;
        }
        at += block.len() as u64;
    }
    match run {
        Some((start, bytes)) => disk.write_all_at(bytes, start).map_err(Error::Write),
        None => Ok(()),
    }
}
