"""TLS before servers that were built without it: a front that ends TLS and passes the bytes on, Redis's way or PostgreSQL's."""

from __future__ import annotations

import asyncio
import ssl
import threading
from concurrent.futures import Future
from typing import Any, Self

from ops.stack.ports import LOOPBACK

#: How PostgreSQL's clients ask for TLS: length 8 and the code 80877103; the server says S, and the handshake begins.
SSL_REQUEST = bytes.fromhex("00000008 04d2162f")
#: Longest the front's own loop may take to answer, seconds.
PATIENCE = 10.0
READ_SIZE = 65_536


class Front:
    """Takes TLS connections on a port of its own, for as long as a `with` block.

    Args:
        target: the port on this machine that gets the bytes.
        context: certificate and key, and whose certificates are asked for.
        is_postgresql: clients ask for TLS in PostgreSQL's way first; those who do not are sent away.
    """

    def __init__(self, target: int, context: ssl.SSLContext, *, is_postgresql: bool = False) -> None:
        self._target = target
        self._context = context
        self._is_postgresql = is_postgresql
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tls-front", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        #: Connections whose handshake was done.
        self.taken = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._call(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # What a connection's end has put off is done in the loop's next turns.
        await asyncio.sleep(0.05)

    def _call(self, work: Any) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(PATIENCE)

    async def _listen(self) -> asyncio.Server:
        context = None if self._is_postgresql else self._context
        return await asyncio.start_server(self._connected, LOOPBACK, 0, ssl=context)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far: asyncio.StreamWriter | None = None
        try:
            if self._is_postgresql:
                if await reader.readexactly(len(SSL_REQUEST)) != SSL_REQUEST:
                    return
                writer.write(b"S")
                await writer.start_tls(self._context)
            self.taken += 1
            far_reader, far = await asyncio.open_connection(LOOPBACK, self._target)
            ways = [asyncio.ensure_future(_pass_on(*way)) for way in ((reader, far), (far_reader, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for one in (writer, far):
                if one is not None:
                    one.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while given := await reader.read(READ_SIZE):
        writer.write(given)
        await writer.drain()
