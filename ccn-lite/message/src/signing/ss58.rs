//! SS58, the addresses of Substrate: the number of a network, an account and a checksum, in base58. As
//! in `Ss58Codec` of the crate `sp-core`.

use blake2::{Blake2b512, Digest};

use super::{Flaw, base58};

/// Put before what the checksum is taken of.
const CHECKSUM_CONTEXT: &[u8] = b"SS58PRE";

/// Numbers that no network has, so that the keys of other systems are not taken for addresses.
const RESERVED_NETWORKS: [u16; 2] = [46, 47];

/// The public key of the account at `address`, on any network.
pub(super) fn account(address: &str) -> Result<[u8; 32], Flaw> {
    // The first byte tells whether the number of the network has one byte or two, in which its bits are out of order.
    match base58::decode::<35>(address) {
        Ok(bytes @ [network @ 0..64, ..]) => checked(&bytes, 1, network.into()),
        Ok(_) => Err(Flaw::Length { expected: 36 }),
        Err(_) => match base58::decode::<36>(address)? {
            bytes @ [first @ 64..128, second, ..] => {
                let low = (first & 63) << 2 | second >> 6;
                let network = u16::from_le_bytes([low, second & 63]);
                checked(&bytes, 2, network)
            }
            _ => Err(Flaw::Length { expected: 35 }),
        },
    }
}

/// The account behind the `skip` bytes of the network.
fn checked(bytes: &[u8], skip: usize, network: u16) -> Result<[u8; 32], Flaw> {
    if RESERVED_NETWORKS.contains(&network) {
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
    body[skip..].try_into().map_err(|_| wrong_length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(network: &[u8], account: &[u8]) -> String {
        let body = [network, account].concat();
        let digest = Blake2b512::new()
            .chain_update(CHECKSUM_CONTEXT)
            .chain_update(&body)
            .finalize();
        bs58::encode([&body, &digest[..2]].concat()).into_string()
    }

    #[test]
    fn numbers_of_networks_have_one_byte_or_two() {
        let key = [7; 32];
        // 64 is the first and 16383 the last with two bytes.
        for network in [&[0][..], &[63], &[0b0101_0000, 0], &[0b0111_1111, 0xff]] {
            assert_eq!(account(&address(network, &key)), Ok(key), "{network:?}");
        }
    }

    #[test]
    fn what_is_no_account_of_a_network_is_refused() {
        let refused = |network: &[u8], key: &[u8]| account(&address(network, key)).unwrap_err();
        let expected = "an address of a network";
        for reserved in [&[46][..], &[47], &[0b0100_1011, 0b1000_0000]] {
            assert_eq!(refused(reserved, &[7; 32]), Flaw::Unsupported { expected });
        }
        assert_eq!(refused(&[128], &[7; 32]), Flaw::Length { expected: 36 });
        assert_eq!(refused(&[42], &[7; 33]), Flaw::Length { expected: 35 });
        let other = address(&[42], &[7; 32]).replacen('5', "6", 1);
        assert_eq!(account(&other), Err(Flaw::Checksum));
    }
}
