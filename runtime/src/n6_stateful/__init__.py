"""The public names of n6-stateful-runtime."""

from n6_stateful.collector import AbstractBaseCollector, BaseCollector
from n6_stateful.download import Download
from n6_stateful.errors import (
    CollectorError,
    ConfigError,
    N6StatefulError,
    NotFilledInError,
    NothingNew,
    PublishError,
    SourceError,
    StateError,
    StateLockedError,
)
from n6_stateful.publishing import QueuedBase
from n6_stateful.state import CollectorWithStateMixin

__version__ = "0.1.0"

__all__ = [
    "AbstractBaseCollector",
    "BaseCollector",
    "CollectorError",
    "CollectorWithStateMixin",
    "ConfigError",
    "Download",
    "N6StatefulError",
    "NotFilledInError",
    "NothingNew",
    "PublishError",
    "QueuedBase",
    "SourceError",
    "StateError",
    "StateLockedError",
]
