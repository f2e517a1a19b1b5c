"""A TCP proxy that can be told to misbehave: reset, black-hole or delay what passes through it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from concurrent.futures import Future
from typing import Any

from ops.stack.ports import LOOPBACK

#: Bytes read at once.
CHUNK = 65_536
#: How long starting or controlling the proxy may take, seconds.
PATIENCE = 5.0
#: Makes `close` send a reset: linger is on, for 0 seconds.
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class Proxy:
    """Listens on a port of its own and passes bytes to another, in a thread with an event loop.

    Args:
        target: the port on this machine that is spoken to.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._delay = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._opened = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._call(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]

    def _call(self, work: Any) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(PATIENCE)

    async def _listen(self) -> asyncio.Server:
        self._opened.set()
        return await asyncio.start_server(self._connected, LOOPBACK, 0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        far: asyncio.StreamWriter | None = None
        ways: list[asyncio.Future[None]] = []
        try:
            await self._opened.wait()
            far_reader, far = await asyncio.open_connection(LOOPBACK, self._target)
            self._writers.add(far)
            ways = [
                asyncio.ensure_future(way)
                for way in (self._pass(reader, far), self._pass(far_reader, writer))
            ]
            # One side that closes ends the other: neither protocol uses half-closed connections.
            await asyncio.wait(ways, return_when="FIRST_COMPLETED")
        except OSError:
            _reset(writer)
        except asyncio.CancelledError:
            # The proxy ends; asyncio's streams would log a task that ends as cancelled.
            pass
        finally:
            for way in ways:
                way.cancel()
            for one in (writer, far):
                if one is not None:
                    self._writers.discard(one)
                    one.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._opened.wait()
                if self._delay:
                    await asyncio.sleep(self._delay)
                writer.write(data)
                await writer.drain()

    def heal(self) -> None:
        """Passes everything again; what was held back goes on its way."""
        self._loop.call_soon_threadsafe(self._set, 0.0, True)

    def delay(self, seconds: float) -> None:
        """Holds every piece of data for some time, in each direction."""
        self._loop.call_soon_threadsafe(self._set, seconds, True)

    def blackhole(self) -> None:
        """Takes connections and bytes, and passes nothing on: a cable that was pulled."""
        self._loop.call_soon_threadsafe(self._set, 0.0, False)

    def _set(self, delay: float, passing: bool) -> None:  # noqa: FBT001 - called by asyncio, by position
        self._delay = delay
        if passing:
            self._opened.set()
        else:
            self._opened.clear()

    def reset(self) -> int:
        """Resets every open connection; returns how many there were."""

        async def cut() -> int:
            writers = list(self._writers)
            for writer in writers:
                _reset(writer)
            return len(writers) // 2

        count: int = self._call(cut())
        return count

    def close(self) -> None:
        """Ends the proxy."""

        async def end() -> None:
            self._server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for writer in list(self._writers):
                writer.transport.abort()
            # Transports close their sockets in the loop's next round.
            await asyncio.sleep(0)

        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    if raw is not None:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
    writer.transport.abort()
