#!/usr/bin/env python3
"""Writes vectors.json beside this file from the network's Python libraries.

pip install aleph-message==1.7.0 eth-account pynacl base58
"""

import copy
import hashlib
import json
import pathlib

import base58
import nacl.signing
from aleph_message.models import (
    AggregateContent, ForgetContent, InstanceContent, ItemHash, PostContent, ProgramContent, StoreContent,
)
from aleph_message.models.execution.vprogram import VerifiableProgramContent
from eth_account import Account
from eth_account.messages import encode_defunct

MODELS = {
    "POST": PostContent, "AGGREGATE": AggregateContent, "STORE": StoreContent,
    "PROGRAM": ProgramContent, "INSTANCE": InstanceContent, "FORGET": ForgetContent,
    "V-PROGRAM": VerifiableProgramContent,
}
H = "a" * 64
H2 = "b" * 64
V0 = "QmYULJoNGPDmoRq4WNWTDTUvJGJv1hosox8H6vVd1kCsY8"
V1 = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
ADDRESS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
BASE = {"address": ADDRESS, "time": 1700000000.123456}
REF = {"chain": "ETH", "item_content": "{}", "item_hash": H, "item_type": "inline", "sender": ADDRESS,
       "signature": "0x", "time": 1.0}

POST = {**BASE, "type": "test", "content": {"hello": ["world"]}}
AGGREGATE = {**BASE, "key": "k", "content": {"a": 1}}
STORE = {**BASE, "item_type": "storage", "item_hash": H, "size": 3, "content_type": "text/plain", "ref": "name",
         "tags": ["t"], "metadata": {"a": {"b": 1}}, "payment": {"chain": "ETH", "receiver": None, "type": "credit"}}
FORGET = {**BASE, "hashes": [H, V0], "aggregates": [], "reason": "why"}
EXECUTABLE = {
    **BASE, "allow_amend": False, "metadata": {"name": "n", "tags": ["x"], "n": 1, "z": None},
    "authorized_keys": ["ssh-ed25519 AAAA"], "variables": {"A": "b"},
    "resources": {"vcpus": 2, "memory": 4096, "seconds": 30,
                  "published_ports": [{"protocol": "udp", "port": 53}, {"port": 22}]},
    "payment": {"type": "credit"},
    "requirements": {"cpu": {"architecture": "x86_64", "vendor": "AuthenticAMD", "features": ["sev"]},
                     "node": {"owner": ADDRESS, "address_regex": ".*", "node_hash": H, "terms_and_conditions": H2},
                     "gpu": None},
    "volumes": [{"ref": H, "mount": "/a", "comment": "c"},
                {"ephemeral": True, "size_mib": 100, "mount": "/b"},
                {"size_mib": 500, "mount": "/c"},
                {"size_mib": 5000, "mount": "/d"},
                {"parent": {"ref": H}, "persistence": "host", "name": "n", "size_mib": 20}],
    "replaces": None,
}
PROGRAM = {
    **EXECUTABLE, "type": "vm-function",
    "environment": {"reproducible": True, "internet": True, "aleph_api": True, "shared_cache": False},
    "code": {"encoding": "squashfs", "entrypoint": "main:app", "ref": H, "interface": "asgi", "args": ["-x"],
             "use_latest": True},
    "runtime": {"ref": H2, "use_latest": True, "comment": "runtime"},
    "data": {"encoding": "zip", "mount": "/data", "ref": V1, "use_latest": None},
    "export": {"encoding": "plain", "mount": "/out"},
    "on": {"http": True, "message": [{"sender": ADDRESS}], "persistent": False},
}
INSTANCE_GPU = [{"vendor": "N", "device_name": "d", "device_class": "0300", "device_id": "1:2"}]
REGISTER = "0" * 96
SNP = {"mode": "sev_snp", "policy": 0x30000, "runtime": H, "attestation_port": 8443,
       "measurements": [{"platform": "sev_snp", "registers": {"launch": REGISTER}, "vcpu_type": "EPYC-v4"}],
       "gpu": {"vendor": "nvidia", "arch": "hopper", "count": 1, "mode": "cc", "models": ["10de:2b85"]}}
TDX = {"mode": "tdx", "runtime": H, "measurements": [
    {"platform": "tdx", "registers": {k: REGISTER for k in ("mrtd", "rtmr1", "rtmr2", "mrconfigid")}}]}
INSTANCE = {
    **EXECUTABLE,
    "environment": {"internet": True, "aleph_api": False, "hypervisor": "qemu", "trusted_execution": None},
    "rootfs": {"parent": {"ref": H}, "persistence": "host", "size_mib": 20480},
}
SNP_VERIFICATION = {"backend": "sev_snp", "policy": 0x30000, "measurements": SNP["measurements"]}
V_PROGRAM = {
    **BASE, "allow_amend": False, "metadata": {"name": "n", "tags": ["x"]}, "authorized_keys": [], "variables": {},
    "environment": {"internet": True},
    "resources": {"vcpus": 2, "memory": 4096, "seconds": 30, "published_ports": [{"protocol": "udp", "port": 53}]},
    "payment": {"type": "credit"}, "requirements": {"node": {"node_hash": H}}, "replaces": None,
    "runtime": {"ref": H, "comment": "runtime"},
    "workload": {"ref": H, "hash_tree": H2, "roothash": "0" * 64},
    "verification": SNP_VERIFICATION,
    "volumes": [{"ref": H, "hash_tree": V0, "roothash": "1" * 64, "comment": "weights"}],
    "gpu": SNP["gpu"],
}
V_PROGRAM_CASES = [
    {"variables": {"A": "b"}}, {"authorized_keys": ["ssh-ed25519 AAAA"]}, {"replaces": H}, {"allow_amend": True},
    {"payment": {"type": "hold"}}, {"volumes": V_PROGRAM["volumes"] * 8}, {"volumes": V_PROGRAM["volumes"] * 9},
    {"requirements": {"gpu": INSTANCE_GPU}}, {"requirements": {"gpu": []}},
    *[{"gpu": gpu, "verification": verification} for gpu in (None, SNP["gpu"]) for verification in (
        {"backend": "sev_snp", "measurements": SNP["measurements"]}, {**SNP_VERIFICATION, "policy": None},
        {**SNP_VERIFICATION, "policy": 1}, {**SNP_VERIFICATION, "policy": 0x30000 | 1 << 64},
        {**SNP_VERIFICATION, "measurements": SNP["measurements"] * 17}, {**SNP_VERIFICATION, "backend": "sev"},
        {"backend": "tdx", "measurements": TDX["measurements"]}, {"backend": "tdx", "measurements": []},
        {"backend": "tdx", "policy": 1, "measurements": TDX["measurements"]},
        {"backend": "tdx", "measurements": TDX["measurements"] * 2},
        {"backend": "tdx", "measurements": SNP["measurements"]})],
]
SOURCES = {"POST": POST, "AGGREGATE": AGGREGATE, "STORE": STORE, "PROGRAM": PROGRAM, "INSTANCE": INSTANCE,
           "FORGET": FORGET, "V-PROGRAM": V_PROGRAM}


def paths(value, prefix=()):
    """Every place inside a JSON value."""
    yield prefix
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, (*prefix, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths(inner, (*prefix, index))


def changed(source, path, value, delete=False):
    copied = copy.deepcopy(source)
    if not path:
        return value
    holder = copied
    for step in path[:-1]:
        holder = holder[step]
    if delete:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return copied


MUTANTS = [None, True, False, 0, 1, -1, 1.0, 1.5, 257, 70000, 2**40, "", "x", "1", " 7 ", "true", "yes", "1.0", "amend",
           "hold", "superfluid", "credit", "tcp", H, H.upper(), V0, V1, "bafk" + V1[4:], [], [None], ["x"], [H], {},
           {"name": "k"}, {"ref": H}, {"x": 1}, {"tags": ["a"]}, {"tags": [""]}, {"tags": ["t"] * 17},
           {"size_mib": 1000}, {"size_mib": 1001}, {"size_mib": 0}, {"size_mib": "5"}, {"size_mib": 5.0},
           {"size_mib": 1953125}, {"size_mib": 1953126}, {"type": "hold"}, {"type": "superfluid"}, "x" * 257,
           "x" * 513, "é" * 256, REF, {**REF, "type": "STORE"}, 9223372036, 9223372037]

INSTANCE_CASES = [
    {"payment": None}, {"payment": {"type": "hold"}}, {"payment": {"type": "superfluid"}}, {"requirements": None},
    {"payment": {"type": "hold"}, "requirements": {"node": {"node_hash": H}}},
    {"payment": {"type": "superfluid"}, "requirements": {"node": {"owner": ADDRESS}}},
    {"payment": {"type": "superfluid"}, "requirements": {}},
    {"payment": {"type": "superfluid"}, "requirements": None},
    {"requirements": {"node": {"terms_and_conditions": H}}},
    {"requirements": {"gpu": [{"vendor": "N", "device_name": "d", "device_class": "0300", "device_id": "1:2"}]}},
    {"payment": {"type": "hold"},
     "requirements": {"gpu": [{"vendor": "N", "device_name": "d", "device_class": "0300", "device_id": "1:2"}]}},
    {"environment": {"hypervisor": "firecracker"},
     "requirements": {"gpu": [{"vendor": "N", "device_name": "d", "device_class": "0302", "device_id": "1:2"}]}},
    {"requirements": {"gpu": [{"vendor": "N", "device_name": "d", "device_class": "0301", "device_id": "1:2"}]}},
    {"requirements": {"node": {"address_regex": "("}}},
    *[{"environment": {"hypervisor": h, "trusted_execution": t}}
      for h in ("qemu", "firecracker", None)
      for t in ({}, {"firmware": H}, {"mode": "sev", "runtime": H}, SNP, TDX, {**SNP, "policy": 1},
                {**SNP, "firmware": H}, {**TDX, "policy": 5}, {**TDX, "gpu": SNP["gpu"]}, {**SNP, "measurements": []},
                {**SNP, "measurements": TDX["measurements"]}, {**SNP, "runtime": None},
                {**SNP, "gpu": {**SNP["gpu"], "count": 9}}, {**SNP, "gpu": {**SNP["gpu"], "count": 1.0}},
                {**SNP, "gpu": {**SNP["gpu"], "models": []}}, {**TDX, "measurements": TDX["measurements"] * 2})],
    {"payment": {"type": "hold"}, "environment": {"hypervisor": "qemu", "trusted_execution": TDX}},
    {"payment": {"type": "hold"}, "environment": {"hypervisor": "qemu", "trusted_execution": {"firmware": H}}},
]


def dump(kind, content):
    """What the model makes of the content, or None when it refuses."""
    try:
        return json.loads(MODELS[kind].model_validate(content).model_dump_json())
    except Exception:
        return None


def verdict(kind, *changes):
    """A vector: the type's base content with these (path, value) or (path,) changes, and how it reads."""
    content = SOURCES[kind]
    for change in changes:
        content = changed(content, change[0], *change[1:]) if len(change) > 1 else changed(
            content, change[0], None, delete=True)
    vector = {"type": kind, "changes": changes}
    read = dump(kind, content)
    if read is not None:
        whole = dump(kind, SOURCES[kind])
        vector["dump"] = {k: v for k, v in read.items() if json.dumps(whole[k]) != json.dumps(v)}
    return vector


def contents():
    for kind, source in SOURCES.items():
        yield verdict(kind)
        for path in paths(source):
            if not path:
                continue
            if isinstance(path[-1], str):
                yield verdict(kind, (path,))
            for mutant in MUTANTS:
                yield verdict(kind, (path, mutant))
        for path in [(), *(p for p in paths(source) if p)]:
            holder = source
            for step in path:
                holder = holder[step]
            if isinstance(holder, dict):
                yield verdict(kind, ((*path, "extra"), 1))
    for case in INSTANCE_CASES:
        yield verdict("INSTANCE", *(((key,), value) for key, value in case.items()))
    for case in V_PROGRAM_CASES:
        yield verdict("V-PROGRAM", *(((key,), value) for key, value in case.items()))


def envelopes():
    account = Account.from_key("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
    solana = nacl.signing.SigningKey(bytes(range(32)))
    sol_address = base58.b58encode(bytes(solana.verify_key)).decode()
    for kind, source in SOURCES.items():
        for chain in ("ETH", "BASE", "SOL", "ES", "AVAX"):
            sender = sol_address if chain in ("SOL", "ES") else account.address
            item_content = json.dumps({**source, "address": sender}, separators=(",", ":"))
            item_hash = hashlib.sha256(item_content.encode()).hexdigest()
            buffer = f"{chain}\n{sender}\n{kind}\n{item_hash}".encode()
            if chain in ("SOL", "ES"):
                signature = json.dumps({"signature": base58.b58encode(solana.sign(buffer).signature).decode(),
                                        "publicKey": sender})
            else:
                signature = "0x" + account.sign_message(encode_defunct(buffer)).signature.hex().removeprefix("0x")
            yield {"sender": sender, "chain": chain, "type": kind, "signature": signature, "item_type": "inline",
                   "item_content": item_content, "item_hash": item_hash, "time": 1700000000.5, "channel": "TEST"}


def hashes():
    for text in (H, H.upper(), "0" * 64, "g" * 64, "a" * 63, "a" * 65, V0, V0[:-1], V0[:-2], V0[:-3], V0 + "1",
                 V0[:-1] + "0", "qm" + V0[2:], V1, V1[:-1], "bafk" + V1[4:], V1.upper(), V1[:-1] + "1", "", "Qm",
                 "é" * 32):
        try:
            yield {"text": text, "item_type": ItemHash(text).item_type.value}
        except Exception:
            yield {"text": text, "item_type": None}


def main():
    # Most mutants are refused and say little more than that: a tenth of those is kept.
    kept, refused = [], 0
    for vector in contents():
        if "dump" not in vector:
            refused += 1
            if len(vector["changes"]) == 1 and len(vector["changes"][0]) > 1 and refused % 10:
                continue
        kept.append(vector)
    document = {"hashes": list(hashes()), "envelopes": list(envelopes()), "bases": SOURCES,
                "dumps": {kind: dump(kind, base) for kind, base in SOURCES.items()}, "contents": kept}
    lines = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    pathlib.Path(__file__).with_name("vectors.json").write_text(lines + "\n")
    print(len(kept), "contents,", refused, "refused before thinning")


if __name__ == "__main__":
    main()
