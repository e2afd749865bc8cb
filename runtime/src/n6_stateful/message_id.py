"""Stable message ids: the same data collected again from the same state gets the same id.

n6 hashes the source, the time and the body, so that a run that is repeated after a crash gives new ids to old
data. Here the state's generation stands in place of the time.
"""

from __future__ import annotations

from hashlib import blake2b


class MessageIds:
    """Makes the ids of one run's messages.

    An id is 32 hex digits (n6's width) over where the message goes, the state's generation, the body, and how
    often that came before in that generation. BLAKE2 rather than n6's MD5, so that nobody who writes into a
    feed can make two records share an id.
    """

    def __init__(self) -> None:
        self._to = ("", "", "")
        self._begun = blake2b()
        self._counts: dict[int, int] = {}  # some 85 bytes each

    def next(self, exchange: str, routing_key: str, generation: str, body: bytes) -> str:
        """The id of `body`, going to `exchange` with `routing_key` while `generation` is the current one."""
        to = exchange, routing_key, generation
        if to != self._to:
            if generation != self._to[2]:
                self._counts = {}
            self._to, self._begun = to, blake2b(repr(to).encode(), digest_size=16)
        digest = self._begun.copy()
        digest.update(body)
        # Should two bodies share these 64 bits, the later one counts as a repeat: its id is still its own.
        key = int.from_bytes(digest.digest()[:8], "little")
        count = self._counts[key] = self._counts.get(key, -1) + 1
        if count:
            # Hashed apart: put behind the body, it would be what another body ends with.
            digest = blake2b(b"%s %d" % (digest.digest(), count), digest_size=16, person=b"repeat")
        return digest.hexdigest()
