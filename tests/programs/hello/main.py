"""What a function sees of its machine, and a few routes that show how requests travel.

A bare ASGI application: it runs on any server and any runtime.
"""

import asyncio
import json
import os
import socket
import sys
import urllib.request


def addresses():
    """The addresses of eth0, as the routes out of it would use them."""
    found = {}
    for family, probe, name in ((socket.AF_INET, "192.0.2.1", "ipv4"), (socket.AF_INET6, "2001:db8::1", "ipv6")):
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            try:
                s.connect((probe, 9))
                found[name] = s.getsockname()[0]
            except OSError as error:
                found[name] = f"none ({error})"
    return found


async def body_of(receive):
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def answer(send, status, content, headers=()):
    payload = json.dumps(content).encode()
    await send({
        "type": "http.response.start",
        "status": status,
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(payload)).encode()), *headers],
    })
    await send({"type": "http.response.body", "body": payload})


def fetch(url):
    with urllib.request.urlopen(url, timeout=20) as response:
        return response.read().decode()


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] != "http":
        return

    path = scope["path"]
    query = scope["query_string"].decode()
    if path == "/":
        await answer(send, 200, {
            "kernel": os.uname().release,
            "hostname": socket.gethostname(),
            "python": sys.version.split()[0],
            "pid1": os.readlink("/proc/1/exe") if os.path.islink("/proc/1/exe") else None,
            "variables": {k: v for k, v in os.environ.items() if k.startswith("DEMO_")},
            **addresses(),
        })
    elif path == "/echo":
        body = await body_of(receive)
        await answer(send, 201, {
            "method": scope["method"],
            "query": query,
            "headers": {k.decode(): v.decode() for k, v in scope["headers"]},
            "length": len(body),
            "body": body.decode("latin-1") if len(body) < 4096 else None,
        }, headers=[(b"x-demo", b"kept"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")])
    elif path == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        for number in range(5):
            await send({"type": "http.response.body", "body": f"part {number}\n".encode(), "more_body": True})
            await asyncio.sleep(0.2)
        await send({"type": "http.response.body", "body": b""})
    elif path == "/missing":
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": b"<p>not here</p>"})
    elif path == "/fetch":
        await answer(send, 200, {"text": await asyncio.to_thread(fetch, query)})
    elif path == "/slow":
        await asyncio.sleep(float(query))
        await answer(send, 200, {"slept": query})
    elif path == "/exit":
        print("leaving on request", flush=True)
        os._exit(7)
    else:
        await answer(send, 404, {"error": "no such route"})
