"""Serves one ASGI application on the listening socket that the guest's init passes as descriptor 3.

In: `asgi module:app`, the code in the working directory, LISTEN_FDS=1, NOTIFY_SOCKET.
Out: READY=1 when the application's own start-up (lifespan) is done; otherwise the reason on stderr and a status of 1
(the application does not import or start) or 2 (called wrongly).
"""

import asyncio
import importlib
import os
import socket
import sys
import traceback

LISTEN_FD = 3
PACKAGES = "/opt/packages"


class Wrong(Exception):
    """The call itself or the entry point is wrong; the message says what is."""


def code_path(directory):
    """Where modules are looked for: the code, ZIP archives at its top level, and the volume with packages."""
    found = [directory]
    for name in sorted(os.listdir(directory)):
        if name.endswith(".zip"):
            found.append(os.path.join(directory, name))
    if os.path.isdir(PACKAGES):
        found.append(PACKAGES)
    return found


def load(entrypoint):
    """The object `module:app`; `app` alone may have dots, and is "app" when it is left out."""
    module, _, attributes = entrypoint.partition(":")
    if not module:
        raise Wrong(f"entry point {entrypoint!r} names no module: it has to read module:app")
    app = importlib.import_module(module)
    for name in (attributes or "app").split("."):
        try:
            app = getattr(app, name)
        except AttributeError:
            raise Wrong(f"entry point {entrypoint!r}: module {module!r} has no {attributes or 'app'!r}") from None
    if not callable(app):
        raise Wrong(f"entry point {entrypoint!r} is a {type(app).__name__}, not an ASGI application")
    return app


def notify(state):
    """sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
        s.connect(address)
        s.sendall(state.encode())


def listening_socket():
    """The socket that came with the process, on the first descriptor after the standard ones (sd_listen_fds(3))."""
    if os.environ.get("LISTEN_FDS") != "1":
        raise Wrong("LISTEN_FDS has to be 1: the listening socket comes as descriptor 3")
    try:
        listener = socket.socket(fileno=LISTEN_FD)
    except OSError as error:
        raise Wrong(f"descriptor {LISTEN_FD} is not a socket: {error}") from None
    listener.set_inheritable(False)
    # Of no use to the application's own children.
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    return listener


def serve(app, listener):
    """Runs until SIGTERM or SIGINT; the status to exit with."""
    from uvicorn.config import Config
    from uvicorn.server import Server

    class NotifyingServer(Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            if self.started and not self.should_exit:
                notify("READY=1")

    config = Config(
        app,
        loop="asyncio",
        http="h11",
        interface="auto",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    server = NotifyingServer(config)
    asyncio.run(server.serve(sockets=[listener]))
    return 0 if server.started else 1


def main():
    """Called by `asgi`."""
    if len(sys.argv) != 2:
        print("usage: asgi MODULE:APP", file=sys.stderr)
        sys.exit(2)
    # In place of the directory of the script.
    sys.path[:1] = code_path(os.getcwd())
    sys.stdout.reconfigure(line_buffering=True)
    try:
        listener = listening_socket()
        app = load(sys.argv[1])
    except Wrong as error:
        print(f"asgi: {error}", file=sys.stderr)
        sys.exit(2)
    except BaseException:
        traceback.print_exc()
        print(f"asgi: {sys.argv[1]} could not be imported", file=sys.stderr)
        sys.exit(1)
    sys.exit(serve(app, listener))
