//! SS58, the addresses of Substrate: the number of a network, an account and a checksum, in base58.
//!
//! <https://docs.polkadot.com/polkadot-protocol/parachain-basics/accounts/#ss58-address-format>

use blake2::{Blake2b512, Digest};

use super::{Flaw, base58};

/// Put before what the checksum is taken of.
const CHECKSUM_CONTEXT: &[u8] = b"SS58PRE";

/// Numbers that no network has, so that the keys of other systems are not taken for addresses.
const RESERVED_NETWORKS: [u8; 2] = [46, 47];

/// The public key of the account at `address`, on any network.
pub(super) fn account(address: &str) -> Result<[u8; 32], Flaw> {
    // A network below 64 is one byte, and the others begin with a bit that says they are two.
    match base58::decode::<35>(address) {
        Ok(bytes) if bytes[0] < 64 => checked(&bytes, 1),
        Ok(_) => Err(Flaw::Length { expected: 36 }),
        Err(_) => match base58::decode::<36>(address)? {
            bytes if (64..128).contains(&bytes[0]) => checked(&bytes, 2),
            _ => Err(Flaw::Length { expected: 35 }),
        },
    }
}

/// The account behind a network of `network` bytes.
fn checked(bytes: &[u8], network: usize) -> Result<[u8; 32], Flaw> {
    if network == 1 && RESERVED_NETWORKS.contains(&bytes[0]) {
        let expected = "an address of a network";
        return Err(Flaw::Unsupported { expected });
    }
    let wrong_length = Flaw::Length { expected: 32 };
    let Some((body, checksum)) = bytes.split_last_chunk::<2>() else {
        return Err(wrong_length);
    };
    let digest = Blake2b512::new()
        .chain_update(CHECKSUM_CONTEXT)
        .chain_update(body)
        .finalize();
    if digest[..2] != *checksum {
        return Err(Flaw::Checksum);
    }
    body[network..].try_into().map_err(|_| wrong_length)
}
