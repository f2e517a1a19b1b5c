"""Where does a body in chunks end? Whether each chunk is as it should be is gunicorn's to say, once all of it is here."""

from __future__ import annotations

from webapp.server.limits import BODY_BYTES_PER_FRAMING_BYTE, FRAMING_BYTES

#: Longest line with a chunk's size, and longest trailer, bytes.
_MAX_LINE = 8_190
_MAX_DIGITS = 16
_HEX = frozenset(b"0123456789abcdefABCDEF")


class ChunkScan:
    """Follows a body in chunks as it arrives, and finds its end.

    Args:
        start: where it begins in the buffer.

    Attributes:
        end: where it ends, once that is known. What is broken ends where it broke: nothing that follows could mend it.
        size: bytes in the chunks so far, without what frames them.
        is_too_fine: whether its chunks are so small that it is refused for it.
    """

    def __init__(self, start: int) -> None:
        self._start = self._at = start
        self._in_trailer = False
        self.end: int | None = None
        self.size = 0
        self.is_too_fine = False

    def look(self, buffer: bytearray) -> bool:
        """Looks at what has arrived; True when the end is there."""
        while self.end is None and self._at <= len(buffer):
            if not (self._trailer(buffer) if self._in_trailer else self._chunk(buffer)):
                break
        return self.end is not None

    def _chunk(self, buffer: bytearray) -> bool:
        """Passes over one chunk, whose last byte may still be to come; False when its size is not here yet."""
        if self.size and buffer[self._at - 2 : self._at] != b"\r\n":
            return self._broken(buffer)
        line_end = buffer.find(b"\r\n", self._at, self._at + _MAX_LINE)
        if line_end < 0:
            return len(buffer) - self._at >= _MAX_LINE and self._broken(buffer)
        digits = bytes(buffer[self._at : line_end]).partition(b";")[0].strip(b" \t")
        if not digits or len(digits) > _MAX_DIGITS or not _HEX.issuperset(digits):
            return self._broken(buffer)
        size = int(digits, 16)
        self._at = line_end + 2
        if size == 0:
            self._in_trailer = True
        else:
            self.size += size
            self._at += size + 2
        framing = self._at - self._start - self.size
        self.is_too_fine = framing > FRAMING_BYTES + self.size // BODY_BYTES_PER_FRAMING_BYTE
        return not self.is_too_fine or self._broken(buffer)

    def _trailer(self, buffer: bytearray) -> bool:
        # The line of the last chunk ends where the trailer begins, so an empty one is found as well.
        found = buffer.find(b"\r\n\r\n", self._at - 2)
        if found < 0:
            return len(buffer) - self._at >= _MAX_LINE and self._broken(buffer)
        self.end = found + 4
        return True

    def _broken(self, buffer: bytearray) -> bool:
        self.end = len(buffer)
        return True
