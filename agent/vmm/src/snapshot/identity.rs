//! What differs in every machine, copies among them: the generation identifier.

use std::io;

use vm_memory::{Bytes, GuestAddress};

use crate::error::os;
use crate::memory::Ram;
use crate::plan::layout::VMGENID;
use crate::{Error, Result};

/// Gives the machine an identifier that no other one has. A guest that has read another one has to be told.
///
/// # Errors
/// [`Error::Os`], [`Error::WriteBoot`].
pub fn renew(ram: &Ram) -> Result<()> {
    let generation: [u8; 16] = random().map_err(os("make a generation identifier"))?;
    ram.write_slice(&generation, GuestAddress(VMGENID))
        .map_err(|error| Error::WriteBoot("the generation identifier", error))
}

/// From the host's generator.
///
/// # Errors
/// getrandom(2)'s.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    // Up to 256 bytes come whole once the host's generator is seeded.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes)
}
