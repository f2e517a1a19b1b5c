"""How quick a task is, and so how many of its jobs one message carries. Pure."""

from __future__ import annotations

#: Work that a message should carry, seconds: little enough that no one waits long behind it.
WORK_IN_A_MESSAGE = 0.1
#: Work that a process claims while it keeps a slot of a limit, seconds. An end with a claim behind the gate leaves the slot idle for
#: 5 to 10 ms, which is much beside jobs of 100 ms; the last jobs of a backlog, and urgent ones, may wait so long for a slot.
WORK_IN_A_SLOT = 0.25
#: Most jobs in a message.
LARGEST_CHUNK = 500
#: Most seconds that are believed of a job: the longest timeout there is.
SLOWEST = 86_400.0
#: Most characters of a pace.
LONGEST_TEXT = 40
#: Weight of a new measurement; small, for on a busy machine now and then a quick job is not.
WEIGHT = 0.02
#: Weight of a job that is a message's work by itself: caution comes at once.
SLOW_WEIGHT = 0.5
#: Paces whose chunks differ by less than this factor are similar.
SIMILAR = 1.5


def parsed(text: bytes | str | None) -> float | None:
    r"""A pace as Redis keeps it, in seconds; None for what is no pace: anyone may have written it.

    Example:
        >>> parsed(b"0.02"), parsed("nan"), parsed("-1"), parsed("1e400"), parsed(b"\xff"), parsed(None)
        (0.02, None, None, None, None, None)
    """
    if text is None or len(text) > LONGEST_TEXT:
        return None
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds <= SLOWEST else None


def chunk_size(seconds: float | None, *, fixed: int | None = None, work: float = WORK_IN_A_MESSAGE) -> int:
    """How many jobs of a task one message carries: one, unless the task is known to be quick.

    Args:
        seconds: how long one job takes; None when that is not known.
        fixed: what the handler says itself.
        work: how much work they should be together, seconds.

    Example:
        >>> chunk_size(0.01), chunk_size(None), chunk_size(3.0), chunk_size(None, fixed=20), chunk_size(0.1, work=0.4)
        (10, 1, 1, 20, 4)
    """
    if fixed is not None:
        return fixed
    if seconds is None:
        return 1
    return max(1, min(LARGEST_CHUNK, int(work / max(seconds, 1e-9))))


def is_similar(one: float, other: float) -> bool:
    """True if two paces make chunks of about the same size, the largest that there are."""
    sizes = sorted((chunk_size(one, work=WORK_IN_A_SLOT), chunk_size(other, work=WORK_IN_A_SLOT)))
    return sizes[1] < SIMILAR * sizes[0]


def updated(known: float, count: int, seconds: float) -> float:
    """What is known of a task's pace after one more measurement: the mean of the first ones, and then a moving one.

    Args:
        known: seconds before.
        count: measurements before.
        seconds: how long the job took.
    """
    weight = SLOW_WEIGHT if seconds > WORK_IN_A_MESSAGE else WEIGHT
    return known + max(weight, 1 / (count + 1)) * (seconds - known)
