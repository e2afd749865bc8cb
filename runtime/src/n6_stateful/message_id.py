"""Stable message ids: the same data collected again from the same state gets the same id.

n6 hashes the source, the time and the body, so that a run that is repeated after a crash gives new
ids to old data. Here the state's generation stands in place of the time.
"""

from __future__ import annotations

import hashlib
from array import array


class MessageIds:
    """Makes the ids of one run's messages.

    An id is 32 hex digits (n6's width) over the source, the generation of the state in force, the
    body, and how often that body came before in that generation. BLAKE2 rather than n6's MD5, so
    that nobody who writes into a feed can make two records share an id.
    """

    def __init__(self) -> None:
        self._generation: str | None = None
        self._source = ""
        self._begun = hashlib.blake2b(digest_size=16)
        self._seen = _Seen()
        self._repeats: dict[int, int] = {}

    def next(self, source: str, generation: str, body: bytes) -> str:
        """The id of `body`, coming from `source` while `generation` is in force."""
        if generation != self._generation:
            self._generation = generation
            self._source = ""
            self._seen = _Seen()
            self._repeats = {}
        if source != self._source:
            self._source = source
            self._begun = hashlib.blake2b(f"{source}\0{generation}\0".encode(), digest_size=16)
        digest = self._begun.copy()
        digest.update(body)
        key = int.from_bytes(digest.digest()[:8], "little")
        if self._seen.add(key):
            return digest.hexdigest()
        self._repeats[key] = count = self._repeats.get(key, 0) + 1
        digest.update(b"\0%d" % count)
        return digest.hexdigest()


class _Seen:
    """A set of 64-bit hashes, at 12 to 24 bytes each where a `set` takes about 100.

    Two bodies that share 64 bits of their digest (one chance in 10^7 for a million bodies) only make
    the later one count as a repeat: its id is still its own.
    """

    def __init__(self) -> None:
        self._count = 0
        self._slots = array("Q", bytes(8 * 64))

    def add(self, key: int) -> bool:
        """Whether `key` is new."""
        key = key or 1  # 0 marks an empty slot
        slots = self._slots
        mask = len(slots) - 1
        at = key & mask
        while found := slots[at]:
            if found == key:
                return False
            at = (at + 1) & mask
        slots[at] = key
        self._count += 1
        if 3 * self._count > 2 * mask:
            self._grow()
        return True

    def _grow(self) -> None:
        old = self._slots
        slots = array("Q", bytes(16 * len(old)))
        mask = len(slots) - 1
        for key in old:
            if key:
                at = key & mask
                while slots[at]:
                    at = (at + 1) & mask
                slots[at] = key
        self._slots = slots
