"""List what lies in several places with fewer requests: what lies together is listed by what its keys have in common.

A request for each manifest, end record and folder is most of what an erasure of thousands of assets costs. How much
else lies between them is seen only while it is listed; when it is too much, each place is listed alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

BESIDE = 50
"""Keys of others, for each place, after which a common list is given up."""
FAILURES = 3
"""Common lists in a row that are given up, after which no more are tried in a run: a page of 1,000 keys costs as much
time as some 20 short ones."""


class _Keyed(Protocol):
    @property
    def key(self) -> str: ...


T = TypeVar("T")
K = TypeVar("K", bound=_Keyed)
Look = Callable[[str, Collection[str], int | None], T]
"""List everything below a prefix, for some of what is wanted, and give up with TooSpread after so many keys of others:
`Owners.wanted`."""


class TooSpread(Exception):
    """Too much of others lies between what was to be listed together."""


class Owners:
    """Which targets, by number, a key belongs to, perhaps several. `wanted`: of each target the keys of objects, or
    folders with a slash at the end."""

    def __init__(self, wanted: Iterable[Iterable[str]]) -> None:
        self._owners: dict[str, list[int]] = {}
        for number, each in enumerate(wanted):
            for prefix in dict.fromkeys(each):
                self._owners.setdefault(prefix, []).append(number)

    def prefixes(self) -> list[str]:
        """Return all that is wanted, but for what lies in a wanted folder."""
        found: list[str] = []
        for prefix in sorted(self._owners):
            if not (found and found[-1].endswith("/") and prefix.startswith(found[-1])):
                found.append(prefix)
        return found

    def wanted(
        self, listed: Iterable[K], group: Collection[str], beside: int | None
    ) -> Iterator[tuple[K, list[int]]]:
        """Yield what belongs to a target, with its owners. `group`: the objects that are looked for. Raises TooSpread
        after more than `beside` of others."""
        others = 0
        for item in listed:
            if owners := self._of(item.key, group):
                yield item, owners
            else:
                others += 1
                if beside is not None and others > beside:
                    raise TooSpread

    def _of(self, key: str, group: Collection[str]) -> list[int]:
        found = list(self._owners.get(key, ())) if key in group else []
        end = key.find("/")
        while end != -1:
            found += self._owners.get(key[: end + 1], ())
            end = key.find("/", end + 1)
        return list(dict.fromkeys(found))


_COMMON: Sequence[Callable[[str], str]] = (
    lambda prefix: prefix.partition("/")[0],
    lambda prefix: "/".join(prefix.split("/", 2)[:2]),
    lambda prefix: prefix.rstrip("/").rpartition("/")[0],
    lambda prefix: prefix,
)
"""What is listed together: everything below one root, such as `recordings`; one folder there, such as a room; what lies
in the same folder; each prefix alone."""


class Together:
    """Of one run, which learns what lies too far apart. Thread-safe."""

    def __init__(self, *, alone: bool = False) -> None:
        """`alone`: list each prefix alone."""
        self._failures: Counter[tuple[str, int]] = Counter()
        self._first_level = len(_COMMON) - 1 if alone else 0

    def listed(self, prefixes: Collection[str], look: Look[T]) -> Iterator[T]:
        """Call `look` so that it reaches all of `prefixes`, and yield what it returns. After TooSpread it is called
        again with narrower prefixes, and has to return then what it found before as well."""
        return self._listed(prefixes, look, self._first_level)

    def _listed(self, prefixes: Collection[str], look: Look[T], level: int) -> Iterator[T]:
        groups: dict[str, list[str]] = {}
        for prefix in sorted(prefixes):
            groups.setdefault(_COMMON[level](prefix), []).append(prefix)
        for group in groups.values():
            if len(group) == 1:
                yield look(group[0], group, None)
                continue
            known = (group[0].partition("/")[0], level)
            if self._failures[known] < FAILURES:
                try:
                    found = look(_shared_start(group[0], group[-1]), frozenset(group), BESIDE * len(group))
                except TooSpread:
                    self._failures[known] += 1
                else:
                    self._failures[known] = 0
                    yield found
                    continue
            yield from self._listed(group, look, level + 1)


ALONE = Together(alone=True)


def _shared_start(first: str, last: str) -> str:
    """Of the first and the last of a sorted group, and so of all of it."""
    number = next((n for n, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), None)
    return first[:number] if number is not None else min(first, last, key=len)
