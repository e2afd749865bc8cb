"""The stories' broker and databases are those of the parts' own tests."""

from tests.delivery.conftest import broker
from tests.journal.conftest import make_database, shared_database

__all__ = ["broker", "make_database", "shared_database"]
