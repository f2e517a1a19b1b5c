"""The text of a key: made, read and hashed. Pure, but for the randomness of a new one.

`djps_k_`, 40 random characters and 6 of checksum: one word for a double click, one pattern for scanners of repositories, and a key that
was mistyped or cut is told from one that is unknown without a look at anything.
"""

from __future__ import annotations

import re
import secrets
import string
from binascii import crc32
from hashlib import sha256
from typing import NamedTuple

from webapp.access.errors import MalformedKey

#: What every key begins with.
PREFIX = "djps_k_"
#: Random characters, of 62 each: 238 bits, so a hash of the key needs no salt and no slowness.
RANDOM_CHARACTERS = 40
#: Characters of checksum: enough for 32 bits.
CHECKSUM_CHARACTERS = 6
#: How many characters of a key are kept, to tell it from others.
HINT_CHARACTERS = 4
#: Longest header that is looked at, characters.
LONGEST_HEADER = 200

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_KEY = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{RANDOM_CHARACTERS + CHECKSUM_CHARACTERS}}}", re.ASCII)
_SCHEME = "bearer "
_APART = b"of another tenant:"


def new_key() -> str:
    """A new key, which no one has seen yet."""
    body = PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM_CHARACTERS))
    return body + checksum(body)


def checksum(body: str) -> str:
    """The last characters of a key, which follow from all before them.

    Example:
        >>> checksum("djps_k_" + 40 * "0")
        '3i2RuQ'
    """
    number, digits = crc32(body.encode()), ""
    for _ in range(CHECKSUM_CHARACTERS):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits


class Kept(NamedTuple):
    """What is kept of a key.

    Args:
        hash: SHA-256 of its text.
        hint: its last characters; empty where its text was never seen.
    """

    hash: bytes
    hint: str


def kept(key: str, *, of_guest: bool = False) -> Kept:
    """What is kept of a key.

    Args:
        of_guest: it is of another tenant than the default one.
    """
    return Kept(apart(hash_of(key)) if of_guest else hash_of(key), hint_of(key))


def hash_of(key: str) -> bytes:
    """What a key is known by."""
    return sha256(key.encode()).digest()


def apart(digest: bytes) -> bytes:
    """What a key of another tenant than the default one is known by, of its hash.

    A process of a release that keeps no tenants apart does not know such a key, so it lets no one in with it.
    """
    return sha256(_APART + digest).digest()


def hint_of(key: str) -> str:
    """The last characters of a key, by which its owner tells it from others; they follow from it, and give nothing away but that."""
    return key[-HINT_CHARACTERS:]


def checked(key: str) -> str:
    """A text that has the form of a key.

    Raises:
        MalformedKey: it does not; the message does not repeat it.
    """
    if _KEY.fullmatch(key) is None:
        characters = RANDOM_CHARACTERS + CHECKSUM_CHARACTERS
        raise MalformedKey(f"the key must be {PREFIX} and {characters} letters and digits")
    if checksum(key[:-CHECKSUM_CHARACTERS]) != key[-CHECKSUM_CHARACTERS:]:
        raise MalformedKey("the key was mistyped or cut: its checksum is wrong")
    return key


def sent_in(authorization: str) -> str:
    """What an `Authorization` header gives as a key; whether it has the form of one is for `checked` to say.

    Raises:
        MalformedKey: the header is of another scheme, or too long.

    Example:
        >>> sent_in("Bearer djps_k_1")
        'djps_k_1'
    """
    if len(authorization) > LONGEST_HEADER or authorization[: len(_SCHEME)].lower() != _SCHEME:
        raise MalformedKey("the header Authorization has no key")
    return authorization[len(_SCHEME) :].strip()
