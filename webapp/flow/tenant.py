"""Tenants as values: whose something is, and how what a tenant names is kept apart from what others name alike. Pure.

Idempotency keys, unique keys and keys of jobs are texts of a client. Those of the default tenant are kept as they are given; those of
another one behind a mark with its number, which no client can write: so they meet nowhere, whatever compares them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

#: The number of the tenant to which everything belongs of which nothing else is said.
DEFAULT_TENANT: Final = 1
#: Its name.
DEFAULT_SLUG: Final = "default"
#: What the names of other tenants are kept behind, on both sides of their number. No key of a client begins with it.
MARK: Final = "\x1f"
#: Longest such mark: a number of ten digits and two characters.
LONGEST_MARK: Final = 12
#: Between a tenant's name and the rest of the name of a queue of its own.
OF_TENANT: Final = "."


class Tenant(NamedTuple):
    """Whose something is.

    Args:
        id: its number.
        slug: its name.
    """

    id: int = DEFAULT_TENANT
    slug: str = DEFAULT_SLUG


#: The one that there always is.
DEFAULT = Tenant()


def mark_of(tenant: int) -> str:
    r"""What all keys of a tenant are kept behind; nothing for the default one.

    Example:
        >>> mark_of(7), mark_of(DEFAULT_TENANT)
        ('\x1f7\x1f', '')
    """
    return "" if tenant == DEFAULT_TENANT else f"{MARK}{tenant}{MARK}"


def kept(tenant: int, key: str) -> str:
    r"""A client's key as it is kept.

    Example:
        >>> kept(7, "order-1"), kept(DEFAULT_TENANT, "order-1")
        ('\x1f7\x1forder-1', 'order-1')
    """
    return mark_of(tenant) + key


def told(key: str) -> str:
    r"""A key that is kept, as its client gave it.

    Example:
        >>> told("\x1f7\x1forder-1"), told("order-1")
        ('order-1', 'order-1')
    """
    if not key.startswith(MARK):
        return key
    number, between, rest = key[1:].partition(MARK)
    return rest if between and number.isdecimal() else key


def owner_of(queue: str) -> str:
    """What a queue's name begins with, up to its first dot: the tenant whose own it is, if there is one of that name.

    Example:
        >>> owner_of("acme.video"), owner_of("video")
        ('acme', '')
    """
    owner, dot, _ = queue.partition(OF_TENANT)
    return owner if dot else ""
