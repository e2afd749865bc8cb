"""Stable message ids: the same data collected again from the same state gets the same id.

n6 hashes the source, the time and the body, so that a run that is repeated after a crash gives new ids to old
data. Here the state's generation stands in place of the time.
"""

from __future__ import annotations

import hashlib


class MessageIds:
    """Makes the ids of one run's messages.

    An id is 32 hex digits (n6's width) over where the message goes, the state's generation, the body, and how
    often that came before in that generation. BLAKE2 rather than n6's MD5, so that nobody who writes into a
    feed can make two records share an id.
    """

    def __init__(self) -> None:
        self._begin("")

    def _begin(self, generation: str) -> None:
        self._generation = generation
        self._seen: set[bytes] = set()
        self._repeats: dict[bytes, int] = {}

    def next(self, exchange: str, routing_key: str, generation: str, body: bytes) -> str:
        """The id of `body`, going to `exchange` with `routing_key` while `generation` is the current one."""
        if generation != self._generation:
            self._begin(generation)
        digest = hashlib.blake2b(f"{exchange}\0{routing_key}\0{generation}\0".encode(), digest_size=16)
        digest.update(body)
        key = digest.digest()
        if key in self._seen:
            self._repeats[key] = count = self._repeats.get(key, 0) + 1
            digest.update(b"\0%d" % count)
        self._seen.add(key)
        return digest.hexdigest()
