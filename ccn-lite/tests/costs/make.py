#!/usr/bin/env python3
"""Makes workloads.jsonl beside it: random workloads and what they cost.

The formulas are those of the network's nodes (28 significant digits rounded half to even, amounts floored at 18 places),
written down here a second time with Python's decimal. Run it again after changing it:

    python3 ccn-lite/tests/costs/make.py
"""

import json
import math
import random
from decimal import ROUND_FLOOR, Decimal, getcontext
from pathlib import Path

SEED = 20250404
WORKLOADS = 3000
MIB = 1 << 20
HOUR = 3600
PLACES = Decimal(1).scaleb(-18)
KINDS = [
    "EXECUTION", "EXECUTION_INSTANCE_VOLUME_ROOTFS", "EXECUTION_PROGRAM_VOLUME_CODE",
    "EXECUTION_PROGRAM_VOLUME_RUNTIME", "EXECUTION_PROGRAM_VOLUME_DATA", "EXECUTION_VOLUME_INMUTABLE",
    "EXECUTION_VOLUME_PERSISTENT", "EXECUTION_VOLUME_DISCOUNT", "STORAGE",
]

getcontext().prec = 28

STORAGE_CREDIT = "0.17967489030626108"
DEFAULT = {
    "program": ("0.05", "0.000000977", "0.977", "200", "0.011", "11000", 2048, 2048),
    "program_persistent": ("0.05", "0.000000977", "0.977", "1000", "0.055", "55000", 20480, 2048),
    "instance": ("0.05", "0.000000977", STORAGE_CREDIT, "1000", "0.055", "14250", 20480, 2048),
    "instance_confidential": ("0.05", "0.000000977", STORAGE_CREDIT, "2000", "0.11", "28500", 20480, 2048),
    "instance_gpu_standard": ("0", "0.000000977", STORAGE_CREDIT, "280", "0.28", "43125", 61440, 6144),
    "instance_gpu_premium": ("0", "0.000000977", STORAGE_CREDIT, "560", "0.56", "86250", 61440, 6144),
    "storage": ("0.333333333", "0", STORAGE_CREDIT, "0", "0", "0", 0, 0),
}
# Model, product, compute units.
GPUS = {
    "10de:27b0": ("RTX 4000 ADA", "instance_gpu_standard", 3),
    "10de:2204": ("RTX 3090", "instance_gpu_standard", 4),
    "10de:2684": ("RTX 4090", "instance_gpu_standard", 6),
    "10de:26b9": ("L40S", "instance_gpu_standard", 12),
    "10de:20b5": ("A100", "instance_gpu_premium", 16),
    "10de:2330": ("H100", "instance_gpu_premium", 24),
}


def decimals(rng, whole, places):
    """A decimal number as text, with up to `places` places."""
    digits = rng.randrange(1, places + 1)
    return f"{rng.randrange(whole + 1)}.{rng.randrange(10 ** digits):0{digits}d}"


def tariffs(rng):
    """The built-in price list, and three that nobody would publish."""
    lists = [DEFAULT]
    for _ in range(3):
        prices = {}
        for product, default in DEFAULT.items():
            storage = tuple(decimals(rng, 1, 20) for _ in range(3))
            compute = tuple(decimals(rng, 90000, 20) for _ in range(3))
            unit = (rng.choice([1000, 2048, 7777]), rng.choice([512, 1000, 2048, 6144]))
            prices[product] = (*storage, *compute, *unit) if default[6] else (*storage, "0", "0", "0", 0, 0)
        lists.append(prices)
    return lists


def floor(amount):
    return amount.quantize(PLACES, ROUND_FLOOR)


class Price:
    def __init__(self, row):
        hold, stream, credit, cu_hold, cu_stream, cu_credit, self.disk, self.memory = row
        self.storage = (Decimal(hold), Decimal(stream) / HOUR, Decimal(credit) / HOUR)
        self.compute = (Decimal(cu_hold), Decimal(cu_stream) / HOUR, Decimal(cu_credit) / HOUR)


def charge(units, rates, payment):
    """A row: hold, stream, credit; whoever pays with credits pays at least one an hour."""
    hold, stream, credit = (floor(units * rate) for rate in rates)
    if payment == "credit":
        credit = max(credit, floor(Decimal(1) / HOUR))
    return [hold, stream, credit]


def mib(size):
    return Decimal(size / MIB)


def volumes(w):
    """Kind, name and MiB of everything charged by size."""
    found = []
    if w["kind"] == "instance":
        found.append(("EXECUTION_INSTANCE_VOLUME_ROOTFS", None, Decimal(w["rootfs"])))
    else:
        for part, kind in (("code", "CODE"), ("runtime", "RUNTIME"), ("data", "DATA")):
            if w.get(part) is not None:
                found.append((f"EXECUTION_PROGRAM_VOLUME_{kind}", None, mib(w[part])))
    for index, (kind, mount, size) in enumerate(w["volumes"]):
        if kind == "file":
            if size is None:
                continue  # A file nobody knows is not charged.
            name, amount = "EXECUTION_VOLUME_INMUTABLE", mib(size)
        else:
            name, amount = "EXECUTION_VOLUME_PERSISTENT", Decimal(size)
        found.append((name, f"#{index}:{mount or name}", amount))
    return found


def machine_units(w, price):
    return max(w["vcpus"], math.ceil(w["memory"] / price.memory))


def executions(w, prices):
    """Products and compute units of the execution rows, and the product its storage is priced with."""
    if w["kind"] == "program":
        product = "program_persistent" if w["persistent"] else "program"
        factor = 2 if w["internet"] and not w["persistent"] else 1
        return [(product, machine_units(w, prices[product]) * factor)], product
    if w["gpus"]:
        units = {}
        for device in w["gpus"]:
            _, product, more = GPUS[device]
            units[product] = units.get(product, 0) + more
        dominant = "instance_gpu_premium" if "instance_gpu_premium" in units else "instance_gpu_standard"
        missing = machine_units(w, prices[dominant]) - sum(units.values())
        units[dominant] += max(missing, 0)
        return list(units.items()), "instance_gpu_premium"
    product = "instance_confidential" if w["confidential"] else "instance"
    return [(product, machine_units(w, prices[product]))], product


def costs(w, tariff, payment):
    prices = {product: Price(row) for product, row in tariff.items()}
    if w["kind"] == "store":
        size = mib(w["file"])
        if payment == "credit":
            size = max(size, Decimal(25))
        return [["STORAGE", "STORAGE", *charge(size, prices["storage"].storage, payment)]] if w["file"] else []
    runs, stored_as = executions(w, prices)
    rows = [
        ["EXECUTION", product, *charge(units, prices[product].compute, payment)]
        for product, units in runs
    ]
    price = prices[stored_as]
    stored = [
        [kind, name or kind, *charge(size, price.storage, payment)] for kind, name, size in volumes(w)
    ]
    included = machine_units(w, price) * price.disk
    discount = [
        floor(-min(sum((row[column] for row in stored), Decimal(0)), included * price.storage[column - 2]))
        for column in (2, 3, 4)
    ]
    return rows + stored + [["EXECUTION_VOLUME_DISCOUNT", "EXECUTION_VOLUME_DISCOUNT", *discount]]


def size(rng):
    return rng.choice([
        lambda: rng.randrange(1, 4096),
        lambda: rng.randrange(1, 64) * MIB,
        lambda: rng.randrange(1, 4 << 30),
        lambda: rng.randrange(1, 1 << 36),
    ])()


def volume(rng):
    mount = rng.choice([None, "", "/data", "/opt/x"])
    kind = rng.choice(["file", "file", "ephemeral", "persistent"])
    if kind == "file":
        return [kind, mount, rng.choice([size(rng), size(rng), size(rng), None])]
    return [kind, mount, rng.randrange(1, 1001) if kind == "ephemeral" else rng.randrange(1, 500_000)]


def workload(rng):
    kind = rng.choice(["store", "program", "program", "instance", "instance", "instance"])
    if kind == "store":
        return {"kind": kind, "file": rng.choice([0, 25 * MIB, 25 * MIB + 1, size(rng), size(rng), size(rng), size(rng)])}
    w = {
        "kind": kind,
        "vcpus": rng.choice([1, 1, 2, 4, rng.randrange(1, 257)]),
        "memory": rng.choice([128, 2048, 2049, 4096, 6144, rng.randrange(1, 1_048_577)]),
        "volumes": [volume(rng) for _ in range(rng.choice([0, 0, 1, 2, 4]))],
    }
    if kind == "program":
        w |= {"persistent": rng.random() < 0.4, "internet": rng.random() < 0.5, "code": size(rng), "runtime": size(rng)}
        w["data"] = size(rng) if rng.random() < 0.3 else None
    else:
        gpus = rng.choices(sorted(GPUS), k=rng.randrange(1, 5)) if rng.random() < 0.3 else []
        w |= {"rootfs": rng.choice([4096, 20480, 20481, rng.randrange(1, 1_953_126)]), "gpus": gpus}
        w["confidential"] = not gpus and rng.random() < 0.3
    return w


def plain(amount):
    text = format(abs(amount) if not amount else amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def aggregate(tariff):
    """The price list as the network writes it."""
    content = {}
    for product, (hold, stream, credit, cu_hold, cu_stream, cu_credit, disk, memory) in tariff.items():
        price = {"storage": {"holding": hold, "payg": stream, "credit": credit}}
        content[product] = {"price": price}
        if disk:
            price["compute_unit"] = {"holding": cu_hold, "payg": cu_stream, "credit": cu_credit}
            content[product]["compute_unit"] = {"vcpus": 1, "disk_mib": disk, "memory_mib": memory}
            content[product]["tiers"] = [
                {"id": f"tier-{number}", "compute_units": units, "model": model}
                for number, (model, of, units) in enumerate(GPUS.values())
                if of == product
            ]
    return content


def main():
    rng = random.Random(SEED)
    lists = tariffs(rng)
    settings = {"compatible_gpus": [{"device_id": device, "model": model} for device, (model, _, _) in GPUS.items()]}
    lines = [{"kinds": KINDS, "settings": settings, "pricing": [aggregate(tariff) for tariff in lists[1:]]}]
    for _ in range(WORKLOADS):
        w = workload(rng)
        # Files cannot be paid by the second.
        stream = [] if w["kind"] == "store" else ["superfluid"]
        payment = rng.choice(["hold", "credit", "credit", *stream])
        number = rng.choice([0, 0, *range(1, len(lists))])
        rows = costs(w, lists[number], payment)
        column = {"hold": 2, "superfluid": 3, "credit": 4}[payment]
        total = sum((row[column] for row in rows), Decimal(0))
        # A kind is its place in the list of kinds; a name that is the kind's own is left out.
        rows = [
            [KINDS.index(kind), None if name == kind else name, *map(plain, amounts)]
            for kind, name, *amounts in rows
        ]
        line = {"w": w, "pay": payment, "list": number, "rows": rows, "total": plain(floor(total))}
        if payment == "credit":
            line["day"] = plain(total * 86400)
        lines.append(line)
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    (Path(__file__).parent / "workloads.jsonl").write_text(text)


if __name__ == "__main__":
    main()
