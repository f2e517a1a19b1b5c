"""gunicorn's threaded worker, in which a connection has a thread only while its request is worked on.

gunicorn gives a thread to each connection that says something, and the thread waits for the rest of the request and until the
answer is read. A few clients that are slow on purpose take all threads. Here one loop reads all requests and finishes all
answers, each with a deadline; a thread gets a request that is complete, and leaves an answer that is not read.
"""

from __future__ import annotations

import errno
import logging
import resource
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from webapp.infra import prefork
from webapp.server import limits, refusals
from webapp.server.connection import Connection
from webapp.server.loop import Loop, refusal

logger = logging.getLogger(__name__)

#: Threads that answer probes, and those for what needs no work slot; beside those for everything else. They are
#: few: a hundred of them at work would each have a turn before the one that answers a probe.
PROMPT_THREADS = LIGHT_THREADS = 2
#: Seconds between two looks for connections that are late.
LOOK_EVERY = 0.5
#: Descriptors that a process needs beside its connections.
OTHER_FILES = 256
#: Bodies from this size on leave memory behind that is worth giving back, bytes: most batches of ten thousand jobs.
LARGE_BODY = 512 * 1024
#: What goes wrong when too many files are open.
_NO_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class PatientWorker(ThreadWorker):
    """A worker process: a loop for all connections, and threads for complete requests."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The kernel would send a file past `Connection`, which has the head and what is not sent yet.
        self.cfg.set("sendfile", False)  # noqa: FBT003 - gunicorn's own signature
        self._look_at = 0.0
        self._loop: Loop | None = None
        self._prompt: ThreadPoolExecutor
        self._light: ThreadPoolExecutor
        #: The size of the largest body that a path takes; gunicorn's configuration puts the application's answer here.
        self.largest_body: Callable[[str], int] = lambda _path: limits.ROOM
        #: Paths that are answered whatever else is going on.
        self.prompt_paths: Collection[str] = ()
        #: How the paths begin that need neither a place nor a connection to PostgreSQL.
        self.light_paths: tuple[str, ...] = ()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._loop.connections) if self._loop is not None else 0

    @property
    def loop(self) -> Loop:
        """What the connections are about; there is one while the worker runs.

        Raises:
            RuntimeError: it does not run.
        """
        if self._loop is None:
            raise RuntimeError("the worker does not run")
        return self._loop

    @classmethod
    def check_config(cls, cfg: Any, _log: Any) -> None:
        """Refuses what this worker does not do.

        Raises:
            RuntimeError: it was told to speak TLS; a proxy does.
        """
        if cfg.is_ssl:
            raise RuntimeError("this worker speaks no TLS: put a proxy before it")

    def run(self) -> None:
        """Serves until it is told to end."""
        self._prompt = ThreadPoolExecutor(PROMPT_THREADS, "prompt")
        self._light = ThreadPoolExecutor(LIGHT_THREADS, "light")
        most = self._connections_allowed()
        self._loop = Loop(self.cfg, self.poller, self._work, self.largest_body, most)
        super().run()
        self._prompt.shutdown(wait=False)
        self._light.shutdown(wait=False)

    def _connections_allowed(self) -> int:
        """Most connections at once, and no more than files may be open."""
        most: int = self.cfg.worker_connections
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY or soft >= most + OTHER_FILES:
            return most
        allowed = most + OTHER_FILES if hard == resource.RLIM_INFINITY else min(most + OTHER_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        return min(most, max(allowed - OTHER_FILES, allowed // 2))

    def accept(self, listener: Any) -> None:
        """Takes a new connection."""
        try:
            own, client = listener.accept()
        except OSError as error:
            if error.errno in _NO_FILES:
                self.loop.close_one()
            return
        self.loop.take(Connection(self.cfg, own, client, listener.getsockname()))

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Waits for events, though not past the next look for connections that are late."""
        super().wait_for_and_dispatch_events(min(timeout, LOOK_EVERY) if self.loop.connections else timeout)
        # Only whether all have gone is asked of this; the loop keeps to their number itself.
        self.nr_conns = min(len(self.loop.connections), 1)

    def murder_pending(self) -> None:
        """Ends connections that are late."""
        now = time.monotonic()
        if now >= self._look_at or not self.alive:
            self._look_at = now + LOOK_EVERY
            self.loop.end_late()

    def murder_keepalived(self, force: bool = False) -> None:  # noqa: FBT001, FBT002 - gunicorn's own signature
        """Ends every connection once this process ends; those that are late are `murder_pending`'s."""
        if force:
            self.loop.close_all()

    def _cap_keepalive(self, deadline: float) -> None:
        self.loop.keep_idle_until(deadline)

    def _work(self, connection: Connection) -> None:
        """Gives a complete request to a thread."""
        pool, path = self.tpool, connection.arrival.request.path
        if path in self.prompt_paths:
            pool = self._prompt
        elif path.startswith(self.light_paths):
            pool = self._light
        done: Future[bool] = pool.submit(self.handle, connection)
        done.add_done_callback(
            lambda future: self.method_queue.defer(self.finish_request, connection, future)
        )

    def finish_request(self, conn: Connection, fs: Future[bool]) -> None:
        """Goes on with a connection whose request was worked on."""
        stays = not fs.cancelled() and fs.exception() is None and fs.result()
        self.loop.go_on(conn, stays=stays)

    def handle(self, conn: Connection) -> bool:
        """Answers a complete request, in a thread; True when the connection may have another one."""
        size, request, stays = conn.held, conn.arrival.request, False
        conn.begin_answer()
        try:
            request = conn.arrival.give_body()
            stays = bool(self.handle_request(request, conn))
            conn.flush()
        except StopIteration:
            stays = False
        except OSError as error:
            # It has gone, or reads nothing of a stream.
            logger.info("client was lost", extra={"error_type": type(error).__name__})
            stays = False
        except Exception as error:  # noqa: BLE001 - it is answered and logged
            self.handle_error(request, conn, conn.client, error)
            stays = False
        if size >= LARGE_BODY:
            prefork.give_memory_back()
        return stays

    def handle_error(self, req: Any, client: Connection, _addr: Any, exc: BaseException) -> None:
        """Answers a request that went wrong on its way to the application or back."""
        status, words = refusals.judge(exc, self.cfg)
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.error("request failed unexpectedly", exc_info=exc)
        if client.has_begun_to_answer:
            return
        client.begin_answer()
        try:
            client.sendall(refusal(client, req, status, words))
            client.flush()
        except OSError:
            logger.info("client was lost")
