"""Run the server on three sockets, and announce when it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator

import uvicorn

from archiver.simulator.app import Simulator, build_app
from archiver.simulator.config import SimulatorConfig
from archiver.simulator.faults.connection import ConnectionInScope
from archiver.simulator.state import write_whole
from archiver.simulator.workspace import Origins, Workspace

# Longer than any client keeps an idle connection.
_KEEP_ALIVE_SECONDS = 75
# Responses end with their connections; this is for those that do not.
_SHUTDOWN_SECONDS = 1


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to its caller."""

    def __init__(self, config: uvicorn.Config, when_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._when_ready = when_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._when_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # A stalled or slow response would delay the shutdown.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def run(config: SimulatorConfig) -> None:
    """Serve until SIGINT or SIGTERM (or the end of stdin, if so configured).

    When ready, writes its addresses as one line of JSON to stdout and to `<state_dir>/ready.json`. Raises OSError when
    a port is taken or the state cannot be saved."""
    if config.access_log:
        logging.basicConfig(stream=sys.stderr, format="%(message)s")
        logging.getLogger("simulator.access").setLevel(logging.INFO)
    workspace = Workspace(config)
    with contextlib.ExitStack() as stack:
        names = ("api", "storage", "cdn")
        wanted = (config.port, config.storage_port, config.cdn_port)
        sockets = [stack.enter_context(contextlib.closing(_listen(config.host, port))) for port in wanted]
        ports = {sock.getsockname()[1]: name for sock, name in zip(sockets, names, strict=True)}
        workspace.origins = Origins(*(_origin(config, port) for port in ports))
        app = build_app(workspace, ports)
        # without uvloop, which is not on every machine
        asyncio.run(_serve(config, workspace, app, sockets))


async def _serve(
    config: SimulatorConfig, workspace: Workspace, app: Simulator, sockets: list[socket.socket]
) -> None:
    server = _Server(
        uvicorn.Config(
            app,
            http=ConnectionInScope,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,  # it would show queries
            server_header=False,
            date_header=False,  # the clock may be shifted
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            ssl_certfile=config.tls_certificate,
            ssl_keyfile=config.tls_key,
        ),
        lambda: _ready(config, workspace, app),
    )

    def stop() -> None:
        server.should_exit = True

    loop = asyncio.get_running_loop()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
    if config.until_stdin_closes:
        threading.Thread(target=_wait_for_stdin, args=(loop, stop), daemon=True).start()
    try:
        await server.serve(sockets)
    finally:
        await app.deliveries.stop()


def _ready(config: SimulatorConfig, workspace: Workspace, app: Simulator) -> None:
    text = json.dumps(
        {
            "api_url": f"{workspace.origins.api}/v2",
            "control_url": f"{workspace.origins.api}/simulator",
            "storage_url": workspace.origins.storage,
            "cdn_url": workspace.origins.cdn,
            "access_key": config.access_key,
            "set": config.set_name,
            "chaos_seed": workspace.faults.chaos_seed if config.chaos_rate else None,
            "pid": os.getpid(),
        }
    )
    if config.state_dir is not None:
        write_whole(config.state_dir / "ready.json", text)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
    if config.webhook_url is not None:
        for asset in workspace.catalogue:
            app.deliveries.send(asset)


def _wait_for_stdin(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    sys.stdin.buffer.read()
    with contextlib.suppress(RuntimeError):  # the loop ended first
        loop.call_soon_threadsafe(stop)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off for sockets that say they are TCP alone; with it, each answer takes 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return sock


def _origin(config: SimulatorConfig, port: int) -> str:
    host = config.public_host or config.host
    scheme = "https" if config.tls_certificate else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
