#!/usr/bin/env python3
"""Makes v<n>.sql beside it: what a released ccn-lite with schema version n left in its database.

    python3 ccn-lite/tests/migrations/make.py path/to/released/ccn-lite

The program is run and used: it takes signed messages and a file, and is then stopped. Run it with the release that has
the newest schema before a new migration is added, and keep the older files. (v1.sql is v2.sql without the table that
version 2 added.)
"""

import json
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
VECTORS = HERE.parent.parent / "message/tests/vectors/vectors.json"
PORT = 24924


def post(message):
    body = json.dumps({"sync": True, "message": message}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/api/v0/messages", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def wait_until_it_serves():
    for _ in range(100):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/version")
            return
        except urllib.error.URLError:
            time.sleep(0.1)
    raise SystemExit("it does not serve")


def main():
    program = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as directory:
        state = Path(directory, "state")
        key = Path(directory, "key")
        key.write_text("0x" + "11" * 32)
        address = subprocess.run(
            [program, "key", "address", key], check=True, capture_output=True, text=True
        ).stdout.split()[-1]
        config = Path(directory, "ccn-lite.toml")
        config.write_text(
            f'listen = "127.0.0.1:{PORT}"\ndata_dir = "{state}"\n[scheduler]\nenabled = false\n'
            f'[[genesis.balances]]\naddress = "{address}"\namount = "1234.5"\n'
            f'[[genesis.credits]]\naddress = "{address}"\namount = 1000000\n'
        )
        node = subprocess.Popen([program, "serve", "--config", config])
        try:
            wait_until_it_serves()
            taken = [post(message) for message in json.loads(VECTORS.read_text())["envelopes"]]
            assert taken.count(200) >= 4, taken
            file = Path(directory, "file")
            file.write_text("a file from before\n")
            subprocess.run(
                [program, "publish", "--ccn", f"http://127.0.0.1:{PORT}", "--key-file", key, file],
                check=True,
            )
        finally:
            node.terminate()
            node.wait()
        database = sqlite3.connect(state / "ccn-lite.sqlite")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        dump = [f"PRAGMA user_version = {version};", *database.iterdump()]
        Path(HERE, f"v{version}.sql").write_text("\n".join(dump) + "\n")


if __name__ == "__main__":
    main()
