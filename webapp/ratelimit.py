"""Counts submissions in Redis for the limiter; a counter that makes no sense begins anew."""

from __future__ import annotations

from limits.storage.redis import RedisStorage

#: What stands before a Redis URL so that `limits` takes this storage.
SCHEME = "djps+"


class HintStorage(RedisStorage):
    """The library's storage, with counters that may hold anything: they are keys in a Redis that others write to.

    A counter of another type, without an end, with one that is too late, or below zero would refuse a client for
    ever, or never.
    """

    STORAGE_SCHEME = [f"{SCHEME}redis", f"{SCHEME}rediss", f"{SCHEME}unix"]  # noqa: RUF012 - the library's way

    SCRIPT_INCR_EXPIRE = b"""
        local amount, expiry = tonumber(ARGV[2]), tonumber(ARGV[1])
        local count = redis.pcall('INCRBY', KEYS[1], amount)
        if type(count) == 'number' and count > amount then
            local left = redis.call('PTTL', KEYS[1])
            if left >= 0 and left <= expiry * 1000 then
                return count
            end
        end
        redis.call('SET', KEYS[1], amount, 'EX', expiry)
        return amount
    """

    def __init__(self, uri: str, **options: float | str | bool) -> None:
        super().__init__(uri.removeprefix(SCHEME), **options)  # type: ignore[arg-type] # the library's own options
