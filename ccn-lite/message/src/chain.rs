//! Chains a message may be signed on, and the types a message may have.

named_values! {
    /// The blockchain whose addresses and signatures a message uses.
    Chain {
        Arb = "ARB", Aurora = "AURORA", Avax = "AVAX", Base = "BASE", Blast = "BLAST", Bob = "BOB", Bsc = "BSC",
        Csdk = "CSDK", Cyber = "CYBER", Dot = "DOT", Eclipse = "ES", Eth = "ETH", Etherlink = "ETHERLINK",
        Fraxtal = "FRAX", Hype = "HYPE", Ink = "INK", Lens = "LENS", Linea = "LINEA", Lisk = "LISK",
        Metis = "METIS", Mode = "MODE", Neo = "NEO", Nuls = "NULS", Nuls2 = "NULS2", Optimism = "OP", Pol = "POL",
        Sol = "SOL", Somnia = "STT", Sonic = "SONIC", Tezos = "TEZOS", Unichain = "UNICHAIN", Worldchain = "WLD",
        Zora = "ZORA",
    }
}

named_values! {
    /// What a message does.
    MessageType {
        Post = "POST", Aggregate = "AGGREGATE", Store = "STORE", Program = "PROGRAM", Instance = "INSTANCE",
        VerifiableProgram = "V-PROGRAM", Forget = "FORGET",
    }
}

/// How messages of a chain are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// secp256k1 over the EIP-191 personal message; the signature is 65 bytes in hex.
    Eip191,
    /// ed25519 over the plain buffer; the signature is a JSON text with base58 members.
    Ed25519,
    /// One of three curves over the blake2b hash of the buffer, plain or wrapped; JSON with base58 members.
    Tezos,
    /// sr25519 over the buffer, plain or wrapped; JSON with a member in hex.
    Sr25519,
    /// secp256k1 over a Cosmos transaction; JSON with base64 members.
    Amino,
    /// secp256k1 over Avalanche's signed message; 65 bytes and a checksum in base58.
    Avalanche,
    /// secp256k1 over NULS' signed message; key and signature in hex.
    NulsStruct,
    /// secp256k1 over NULS' signed message; 65 bytes in base64.
    NulsRecoverable,
    /// The network knows no signature for the chain.
    Unsupported,
}

impl Chain {
    /// The signature scheme this node verifies for the chain.
    pub const fn scheme(self) -> Scheme {
        match self {
            Self::Arb
            | Self::Base
            | Self::Blast
            | Self::Bob
            | Self::Bsc
            | Self::Cyber
            | Self::Eth
            | Self::Etherlink
            | Self::Fraxtal
            | Self::Hype
            | Self::Ink
            | Self::Lens
            | Self::Metis
            | Self::Mode
            | Self::Neo
            | Self::Linea
            | Self::Lisk
            | Self::Optimism
            | Self::Pol
            | Self::Sonic
            | Self::Unichain
            | Self::Worldchain
            | Self::Zora => Scheme::Eip191,
            Self::Sol | Self::Eclipse => Scheme::Ed25519,
            Self::Tezos => Scheme::Tezos,
            Self::Dot => Scheme::Sr25519,
            Self::Csdk => Scheme::Amino,
            Self::Avax => Scheme::Avalanche,
            Self::Nuls => Scheme::NulsStruct,
            Self::Nuls2 => Scheme::NulsRecoverable,
            Self::Aurora | Self::Somnia => Scheme::Unsupported,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_thirty_three_chains_and_each_word_parses_back() {
        assert_eq!(Chain::ALL.len(), 33);
        for chain in Chain::ALL {
            assert_eq!(chain.as_str().parse::<Chain>(), Ok(*chain));
        }
        assert!("BTC".parse::<Chain>().is_err());
        assert!("eth".parse::<Chain>().is_err());
    }
    #[test]
    fn two_chains_have_no_signatures_and_twenty_three_share_those_of_ethereum() {
        let with = |scheme| {
            let chains = Chain::ALL.iter();
            chains.filter(|chain| chain.scheme() == scheme).count()
        };
        assert_eq!(with(Scheme::Eip191), 23);
        assert_eq!(with(Scheme::Ed25519), 2);
        assert_eq!(with(Scheme::Unsupported), 2);
    }
}
