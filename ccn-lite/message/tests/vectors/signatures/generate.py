#!/usr/bin/env python3
"""Writes signatures.json beside this file: messages signed on every chain by the network's own clients, and changes to
each that they accept or refuse. What the TypeScript client signs is read from javascript.json, see generate.mjs.

    pip install -r requirements.txt && python3 generate.py

Every message and every change is checked by the libraries that the network's nodes verify with; this script stops
when one is not judged as expected.
"""

import asyncio
import base64
import datetime
import hashlib
import json
import pathlib

import base58
import bech32
import ecdsa
from aleph.sdk.chains import cosmos, ethereum, nuls1, nuls2, solana, substrate, svm, tezos
from coincurve import PublicKey
from cosmospy import pubkey_to_address
from cosmospy._wallet import privkey_to_address, privkey_to_pubkey
from eth_account import Account
from eth_account.messages import encode_defunct
from nacl.signing import VerifyKey
from nuls2.model.data import hash_from_address, recover_message_address
from pytezos_crypto.key import Key
from substrateinterface import Keypair

HERE = pathlib.Path(__file__).parent
EVM = ("ARB BASE BLAST BOB BSC CYBER ETH ETHERLINK FRAX HYPE INK LENS METIS MODE NEO LINEA LISK OP POL SONIC UNICHAIN "
       "WLD ZORA").split()
CONTENTS = {
    "POST": {"type": "t", "content": {"hello": "world", "é": "ü"}},
    "AGGREGATE": {"key": "k", "content": {"a": 1}},
    "FORGET": {"hashes": ["a" * 64], "reason": "why"},
}
TIME = 1700000000.123456


def key(text):
    return hashlib.sha256(text.encode()).digest()


def buffer_of(message):
    return "\n".join(message[field] for field in ("chain", "sender", "type", "item_hash"))


# Accounts: the clients' own classes, with the settings that they leave to their users.

class LowerCase(ethereum.ETHAccount):
    """An address without the checksum that upper case is."""

    def get_address(self):
        return super().get_address().lower()


class Cosmos(cosmos.CSDKAccount):
    """The client's account ignores the prefix that it is given, and takes the key that it signs with for text."""

    def get_address(self):
        return privkey_to_address(self.private_key, hrp=self.hrp)

    async def sign_message(self, message):
        message = self._setup_sender(message)
        signature = await self.sign_raw(cosmos.get_verification_string(message).encode())
        public_key = base64.b64encode(privkey_to_pubkey(self.private_key)).decode()
        message["signature"] = json.dumps({
            "signature": signature.decode(), "pub_key": {"type": "tendermint/PubKeySecp256k1", "value": public_key},
            "account_number": "0", "sequence": "0"})
        return message


class WrappingSubstrate(substrate.DOTAccount):
    """Signs as wallets in browsers do."""

    async def sign_message(self, message):
        message = self._setup_sender(message)
        signature = self._account.sign(f"<Bytes>{buffer_of(message)}</Bytes>")
        message["signature"] = json.dumps({"curve": "sr25519", "data": "0x" + signature.hex()})
        return message


class Tezos(tezos.TezosAccount):
    """An account on any curve; the client's own is on ed25519 only."""

    def __init__(self, private_key, curve):
        super().__init__(private_key)
        self._account = Key.from_secret_exponent(private_key, curve=curve)


class GenericTezos(Tezos):
    """Signatures that do not name their curve."""

    async def sign_raw(self, buffer):
        return self._account.sign(buffer, generic=True).encode()


class WrappingTezos(Tezos):
    """Signs as wallets do, for an application that does not say its address."""

    async def sign_message(self, message):
        message = self._setup_sender(message)
        signature = self._account.sign(tezos_wrapping(message, "aleph.im"), generic=True)
        message["signature"] = json.dumps({"signingType": "micheline", "signature": signature,
                                           "publicKey": self.get_public_key()})
        return message


def accounts():
    for chain in EVM:
        yield chain, ethereum.ETHAccount(key("ethereum 1"))
    yield "ETH", ethereum.ETHAccount(key("ethereum 2"))
    yield "ETH", LowerCase(key("ethereum 2"))
    for name in ("solana 1", "solana 2"):
        yield "SOL", solana.SOLAccount(key(name))
        yield "ES", svm.SVMAccount(key(name), "ES")
    for name in ("tezos 1", "tezos 2"):
        yield "TEZOS", tezos.TezosAccount(key(name))
        for curve in (b"ed", b"sp", b"p2"):
            for account in (Tezos, GenericTezos, WrappingTezos):
                yield "TEZOS", account(key(name), curve)
    words = "legal winner thank year wave sausage worth useful legal winner thank yellow"
    # Substrate, Polkadot, Kusama, and two networks with numbers of two bytes.
    for network in (42, 0, 2, 64, 1284):
        yield "DOT", substrate.DOTAccount(words, network)
    yield "DOT", substrate.DOTAccount("letter advice cage absurd amount doctor acoustic avoid letter advice cage above")
    yield "DOT", WrappingSubstrate(words)
    for prefix in ("cosmos", "osmo", "secret"):
        yield "CSDK", Cosmos(key("cosmos 1"), prefix)
    yield "CSDK", Cosmos(key("cosmos 2"))
    for chain_id in (8964, 261, 256, -2):
        yield "NULS", nuls1.NULSAccount(key("nuls 1"), chain_id)
    yield "NULS", nuls1.NULSAccount(key("nuls 2"))
    for chain_id in (1, 2):
        yield "NULS2", nuls2.NULSAccount(key("nuls 1"), chain_id)
    yield "NULS2", nuls2.NULSAccount(key("nuls 2"))


async def signed(chain, account, kind):
    content = {"address": account.get_address(), "time": TIME, **CONTENTS[kind]}
    item_content = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    message = {"chain": chain, "type": kind, "item_type": "inline", "item_content": item_content, "channel": "TEST",
               "item_hash": hashlib.sha256(item_content.encode()).hexdigest(), "time": TIME}
    return dict(await account.sign_message(message))


# What the network's nodes make of a message, by the same libraries.

def tezos_wrapping(message, application):
    moment = datetime.datetime.fromtimestamp(message["time"], datetime.timezone.utc)
    stamp = moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"
    text = f"Tezos Signed Message: {application} {stamp} {buffer_of(message)}".encode()
    return b"\x05\x01\x00" + str(2 * len(text)).encode() + text


def is_signed_evm(message):
    signable = encode_defunct(text=buffer_of(message))
    signer = Account.recover_message(signable, signature=message["signature"])
    return signer.lower() == message["sender"].lower()


def is_signed_solana(message):
    signature = json.loads(message["signature"])
    VerifyKey(base58.b58decode(signature["publicKey"])).verify(
        buffer_of(message).encode(), base58.b58decode(signature["signature"]))
    return signature["publicKey"] == message["sender"]


def is_signed_tezos(message):
    signature = json.loads(message["signature"])
    signer = Key.from_encoded_key(signature["publicKey"])
    if signature.get("signingType", "raw") == "raw":
        buffer = buffer_of(message).encode()
    else:
        buffer = tezos_wrapping(message, signature.get("dAppUrl", "aleph.im"))
    return signer.public_key_hash() == message["sender"] and signer.verify(signature["signature"], buffer)


def is_signed_substrate(message):
    data = bytes.fromhex(json.loads(message["signature"])["data"].removeprefix("0x"))
    return Keypair(ss58_address=message["sender"]).verify(buffer_of(message), data)


def is_signed_cosmos(message):
    signature = json.loads(message["signature"])
    public_key = base64.b64decode(signature["pub_key"]["value"])
    text = cosmos.get_verification_string(message).encode()
    ecdsa.VerifyingKey.from_string(public_key, curve=ecdsa.SECP256k1).verify(
        base64.b64decode(signature["signature"]), text, hashfunc=hashlib.sha256)
    return pubkey_to_address(public_key, hrp=message["sender"].split("1")[0]) == message["sender"]


def is_signed_avalanche(message):
    bytes_ = base58.b58decode(message["signature"])
    assert hashlib.sha256(bytes_[:-4]).digest()[-4:] == bytes_[-4:]
    buffer = buffer_of(message).encode()
    text = b"\x1aAvalanche Signed Message:\n" + len(buffer).to_bytes(4, "big") + buffer
    public_key = PublicKey.from_signature_and_message(bytes_[:-4], text).format()
    hashed = hashlib.new("ripemd160", hashlib.sha256(public_key).digest()).digest()
    address = bech32.bech32_encode("avax", bech32.convertbits(hashed, 8, 5))
    return message["sender"] == message["sender"].split("-")[0] + "-" + address


def is_signed_nuls(message):
    signature = nuls1.NulsSignature(bytes.fromhex(message["signature"]))
    chain_id = int.from_bytes(nuls1.hash_from_address(message["sender"])[:2], "little", signed=True)
    address = nuls1.get_address(public_key=signature.pub_key, chain_id=chain_id)
    return address == message["sender"] and signature.verify(buffer_of(message).encode())


def is_signed_nuls2(message):
    chain_id = int.from_bytes(hash_from_address(message["sender"])[:2], "little", signed=True)
    signature = base64.b64decode(message["signature"])
    return recover_message_address(signature, buffer_of(message).encode(), chain_id) == message["sender"]


VERIFIERS = {**{chain: is_signed_evm for chain in EVM}, "SOL": is_signed_solana, "ES": is_signed_solana,
             "TEZOS": is_signed_tezos, "DOT": is_signed_substrate, "CSDK": is_signed_cosmos,
             "AVAX": is_signed_avalanche, "NULS": is_signed_nuls, "NULS2": is_signed_nuls2}


def is_signed(message):
    try:
        return bool(VERIFIERS[message["chain"]](message))
    except Exception:
        return False


# Changes.

def flipped(data, bit):
    data = bytearray(data)
    data[bit // 8] ^= 1 << bit % 8
    return bytes(data)


def flips(message):
    """The signature with one bit of its bytes changed, encoded as before."""
    text, chain = message["signature"], message["chain"]

    def member(name, decode, encode, size):
        parts = json.loads(text)
        for bit in range(3, size * 8, size * 8 // 5):
            yield json.dumps({**parts, name: encode(flipped(decode(parts[name]), bit))})

    def whole(decode, encode, size):
        for bit in range(3, size * 8, size * 8 // 5):
            yield encode(flipped(decode(text), bit))

    if chain in EVM:
        return whole(lambda t: bytes.fromhex(t.removeprefix("0x")), lambda d: "0x" + d.hex(), 64)
    if chain in ("SOL", "ES"):
        return member("signature", base58.b58decode, lambda d: base58.b58encode(d).decode(), 64)
    if chain == "TEZOS":
        prefix = len(base58.b58decode_check(json.loads(text)["signature"])) - 64
        return member("signature", base58.b58decode_check,
                      lambda d: base58.b58encode_check(d).decode(), 64 + prefix)
    if chain == "DOT":
        return member("data", lambda t: bytes.fromhex(t.removeprefix("0x")), lambda d: "0x" + d.hex(), 64)
    if chain == "CSDK":
        return member("signature", base64.b64decode, lambda d: base64.b64encode(d).decode(), 64)
    if chain == "AVAX":
        return whole(lambda t: base58.b58decode(t)[:-4],
                     lambda d: base58.b58encode(d + hashlib.sha256(d).digest()[-4:]).decode(), 65)
    if chain == "NULS":
        return whole(bytes.fromhex, bytes.hex, len(text) // 2)
    return whole(base64.b64decode, lambda d: base64.b64encode(d).decode(), 65)


def with_other_s(message):
    """The signature with the other of the two values of s that fit, where there are two."""
    text, chain = message["signature"], message["chain"]
    order = ecdsa.SECP256k1.order

    def other(compact):
        r, s = compact[:32], int.from_bytes(compact[32:64], "big")
        return r + (order - s).to_bytes(32, "big")

    if chain in EVM:
        data = bytes.fromhex(text.removeprefix("0x"))
        yield "0x" + (other(data) + bytes([55 - data[64]])).hex()
    elif chain == "TEZOS" and message["sender"][:3] in ("tz2", "tz3"):
        order = ecdsa.SECP256k1.order if message["sender"].startswith("tz2") else ecdsa.NIST256p.order
        parts = json.loads(text)
        data = base58.b58decode_check(parts["signature"])
        yield json.dumps({**parts, "signature": base58.b58encode_check(data[:-64] + other(data[-64:])).decode()})
    elif chain == "CSDK":
        parts = json.loads(text)
        data = base64.b64decode(parts["signature"])
        yield json.dumps({**parts, "signature": base64.b64encode(other(data)).decode()})
    elif chain == "AVAX":
        data = base58.b58decode(text)
        data = other(data) + bytes([data[64] ^ 1])
        yield base58.b58encode(data + hashlib.sha256(data).digest()[-4:]).decode()
    elif chain == "NULS":
        data = bytes.fromhex(text)
        r, s = ecdsa.util.sigdecode_der(data[36:], order)
        der = ecdsa.util.sigencode_der(r, order - s, order)
        yield (data[:35] + bytes([len(der)]) + der).hex()
    elif chain == "NULS2":
        data = base64.b64decode(text)
        yield base64.b64encode(bytes([(data[0] - 27 ^ 1) + 27]) + other(data[1:])).decode()


def changes(message, others):
    other_content = message["item_content"].replace('"', '" ', 1)
    yield {"item_content": other_content, "item_hash": hashlib.sha256(other_content.encode()).hexdigest()}
    yield {"type": "STORE"}
    family = [chain for chain in VERIFIERS if VERIFIERS[chain] == VERIFIERS[message["chain"]]]
    yield {"chain": next((chain for chain in family if chain != message["chain"]), "ETH")}
    for other in others[:2]:
        yield {"sender": other["sender"]}
        yield {"signature": other["signature"]}
    sender = message["sender"]
    for index in (0, len(sender) // 2, len(sender) - 1):
        letter = "2" if sender[index] != "2" else "3"
        yield {"sender": sender[:index] + letter + sender[index + 1:]}
    # The sender is signed as it is spelled, even where case makes no difference to an address.
    for other_case in sorted({sender.upper(), sender.lower()} - {sender}):
        yield {"sender": other_case}
    for signature in flips(message):
        yield {"signature": signature}
    if "micheline" in message["signature"]:
        yield {"time": message["time"] + 0.002}
        yield {"signature": json.dumps({**json.loads(message["signature"]), "dAppUrl": "another application"})}
        yield {"signature": json.dumps({**json.loads(message["signature"]), "signingType": "raw"})}


async def main():
    messages = [await signed(chain, account, kind) for chain, account in accounts() for kind in CONTENTS
                if chain not in EVM or chain == "ETH" or kind == "POST"]
    messages += json.loads((HERE / "javascript.json").read_text())
    vectors = []
    for message in messages:
        assert is_signed(message), message
        others = [other for other in messages
                  if other["chain"] == message["chain"] and other["sender"] != message["sender"]]
        refused = list(changes(message, others))
        for change in refused:
            assert not is_signed({**message, **change}), (message, change)
        accepted = []
        if "micheline" not in message["signature"]:
            accepted.append({"time": message["time"] + 1})
        if message["chain"] in EVM:
            digits = message["signature"].removeprefix("0x")
            parity = int(digits[-2:], 16) - 27
            accepted += [{"signature": digits}, {"signature": f"0x{digits[:-2]}{parity:02x}"},
                         {"signature": f"0x{digits[:-2]}{37 + parity:02x}"}]
        for change in accepted:
            assert is_signed({**message, **change}), (message, change)
        for signature in with_other_s(message):
            change = {"signature": signature}
            (accepted if is_signed({**message, **change}) else refused).append(change)
        vectors.append({"message": message, "accepted": accepted, "refused": refused})
    lines = ",\n".join(json.dumps(vector, ensure_ascii=False, separators=(",", ":")) for vector in vectors)
    (HERE / "signatures.json").write_text(f"[\n{lines}\n]\n")
    print(len(vectors), "messages,", sum(len(vector["refused"]) for vector in vectors), "changes that are refused")


asyncio.run(main())
