"""TLS in front of a plain server: bytes are passed on as they come, so that what a client does only over TLS (an
aws-chunked body) reaches the server behind as it would."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator

_PIECE_BYTES = 256 * 1024
_TURNS_TO_CLOSE = 5  # of the loop, in which a transport that was aborted lets go of its socket


@contextlib.contextmanager
def tls_front(port_behind: int, context: ssl.SSLContext) -> Iterator[int]:
    """The port where TLS is spoken, until the block ends. It runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    writers: list[asyncio.StreamWriter] = []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(OSError):
            behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", port_behind)
            writers.append(behind_writer)
            await asyncio.gather(_pump(reader, behind_writer), _pump(behind_reader, writer))

    async def start() -> asyncio.Server:
        return await asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=context, limit=_PIECE_BYTES)

    async def stop(server: asyncio.Server) -> None:
        server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        for writer in writers:  # a task that was cancelled before it began has closed nothing
            writer.transport.abort()
        for _ in range(_TURNS_TO_CLOSE):
            await asyncio.sleep(0)

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(stop(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with contextlib.suppress(OSError):
            while piece := await reader.read(_PIECE_BYTES):
                writer.write(piece)
                await writer.drain()
    except asyncio.CancelledError:
        writer.transport.abort()  # a farewell may never be answered
        raise
    finally:
        writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()
