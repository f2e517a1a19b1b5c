"""A request as it arrives: its head is read by gunicorn's parser once it is complete, its body is gathered."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from gunicorn.http.body import Body, ChunkedReader
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, NoMoreData, ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader

from webapp.server.chunks import ChunkScan
from webapp.server.limits import MAX_HEAD

_HEAD_END = b"\r\n\r\n"
#: What gunicorn reads of a body in chunks at a time, bytes; it copies the rest of such a piece for each chunk in it.
_PIECE = 8_192


class EndedEarly(ParseException):  # type: ignore[misc] # gunicorn ships no types
    """The client ended its side of the connection before its request was complete."""


class TooFine(ParseException):  # type: ignore[misc] # gunicorn ships no types
    """A body came in more and smaller chunks than are taken."""


class WholeBody(io.BytesIO):
    """A body that is all here; read at once, it is handed over and not kept."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._size = len(body)

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads as any file."""
        data = super().read(size)
        if len(data) == self._size:
            self.seek(0)
            self.truncate()
        return data


class Arrival:
    """The requests of one connection, one after the other.

    Args:
        cfg: gunicorn's configuration.
        client: the client's address.

    Attributes:
        request: what gunicorn read in the head, once it is here.
        length: the body's, where the head says so.
    """

    def __init__(self, cfg: Any, client: Any) -> None:
        self._cfg = cfg
        self._client = client
        self._number = 0
        self._buffer = bytearray()
        self._body_start = 0
        self._chunks: ChunkScan | None = None
        self.request: Any = None
        self.length: int | None = 0

    def __len__(self) -> int:
        """Bytes that are here."""
        return len(self._buffer)

    def add(self, data: bytes | memoryview) -> None:
        """Takes what has arrived."""
        self._buffer += data

    def read_head(self) -> bool:
        """Reads the head if all of it is here; True when it is read.

        Raises:
            ParseException: it is no request, or larger than it may be.
        """
        end = self._buffer.find(_HEAD_END, max(0, self._body_start - 3))
        if end < 0:
            self._body_start = len(self._buffer)
            self._check_unfinished()
            return False
        self._body_start = end + len(_HEAD_END)
        if self._body_start > MAX_HEAD:
            raise LimitRequestHeaders("head")
        self._number += 1
        try:
            head = bytes(self._buffer[: self._body_start])
            self.request = Request(self._cfg, IterUnreader([head]), self._client, self._number)
        except (NoMoreData, StopIteration):
            raise EndedEarly("the head has no request") from None
        self._find_body()
        return True

    def _check_unfinished(self) -> None:
        if len(self._buffer) > MAX_HEAD:
            if b"\r\n" in self._buffer:
                raise LimitRequestHeaders("head")
            raise LimitRequestLine(len(self._buffer), self._cfg.limit_request_line)
        if self._buffer.count(b"\n") != self._buffer.count(b"\r\n"):
            # gunicorn's parser refuses it at once; its end would never come.
            Request(self._cfg, IterUnreader([bytes(self._buffer)]), self._client, self._number + 1)

    def _find_body(self) -> None:
        headers = dict(self.request.headers)
        if "TRANSFER-ENCODING" in headers:
            self._chunks, self.length = ChunkScan(self._body_start), None
        else:
            self._chunks, self.length = None, int(headers.get("CONTENT-LENGTH", 0))

    @property
    def size(self) -> int:
        """Bytes of the body that are here, without what frames them; of chunks, those that have been announced."""
        return len(self._buffer) - self._body_start if self._chunks is None else self._chunks.size

    @property
    def progress(self) -> str:
        """How far the body has come, in words."""
        if self.length is None:
            return "before its last chunk"
        return f"after {self.size} of the {self.length} bytes that Content-Length announced"

    def take_expectation(self) -> bool:
        """True when the client waits for a word before it sends its body; it is to be said once."""
        expected = bool(self.request._expected_100_continue)  # noqa: SLF001 - it has no other name
        self.request._expected_100_continue = False  # noqa: SLF001
        return expected

    def is_complete(self) -> bool:
        """True when all of the request is here, or is broken beyond mending."""
        if self._chunks is not None:
            return self._chunks.look(self._buffer)
        return self.length is not None and len(self._buffer) - self._body_start >= self.length

    def give_body(self) -> Any:
        """The request with its body, whichever way that came; what follows it stays for the next one.

        Raises:
            ParseException: a chunk is broken.
        """
        end = self._chunks.end if self._chunks is not None else self._body_start + (self.length or 0)
        raw = bytes(memoryview(self._buffer)[self._body_start : end])
        rest = self._buffer[end:] if end is not None else bytearray()
        chunks, request = self._chunks, self.request
        self._buffer, self._body_start, self._chunks, self.request = rest, 0, None, None
        request.body = WholeBody(raw if chunks is None else self._joined(request, chunks, raw))
        return request

    @staticmethod
    def _joined(request: Any, chunks: ChunkScan, raw: bytes) -> bytes:
        """What is in the chunks; from here on the request is one with a length."""
        if chunks.is_too_fine:
            raise TooFine("the chunks of the body are too small; send larger ones")
        reader = Body(ChunkedReader(request, IterUnreader(_pieces(raw))))
        try:
            body: bytes = reader.read()
        except NoMoreData:
            raise EndedEarly("the last chunk of the body is broken") from None
        request.headers = [one for one in request.headers if one[0] != "TRANSFER-ENCODING"]
        request.headers.append(("CONTENT-LENGTH", str(len(body))))
        return body


def _pieces(data: bytes) -> Iterator[bytes]:
    return (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))
