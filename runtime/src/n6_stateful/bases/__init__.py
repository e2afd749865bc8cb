"""Base classes for the shapes that feeds come in: each manages its state itself.

A shape is a small class with one or two methods to write, those below. Everything else is done: loading the
state, leaving out what was collected already, saving it together with what is published.

| shape | class | to be written |
|---|---|---|
| `rows` | `BaseDownloadingTimeOrderedRowsCollector` | `pick_raw_row_time(row)`, `clean_row_time(raw)` |
| | `BaseTimeOrderedRowsCollector` | and `obtain_orig_data() -> bytes` |
| `items` | `BaseSeenItemsCollector` | `obtain_items()`, `item_key(item) -> str`, |
| |  | `item_body(item) -> bytes`, |
| |  | perhaps `item_version(item) -> str` |
| `feed` | `BaseFeedCollector` (RSS, Atom; the extra `feed`) | nothing |
| `pages` | `BasePagedCollector` | `download_page(cursor) -> Page`, |
| |  | `record_body(record) -> bytes` |
| `list` | `BaseDownloadingListCollector` | nothing, or `obtain_data_body() -> bytes \\| None` |
| `email` | `BaseSimpleEmailCollector` | `obtain_data_body() -> bytes \\| None`, which looks at |
| |  | `self.email_msg` |

A class is written with the names of n6's guide (`type`, `config_spec` with `source` and `cache_dir`,
`get_source_channel`) or of n6 4.x (`raw_type`, `config_spec_pattern`, `get_source`, `state_dir`); not
with both for one thing. Instead of `get_source_channel` the attribute `source_channel` will do where the
channel is always the same; the state's name then has it, too. Where it depends on the record, write
`get_source_channel(self, **processed_data)`; the state's name does without it.

Before any of them `BaseDownloadingCollector` can be mixed in. It gives `download(url)`, which is one download
done once, and the options `download_retries`, `download_timeout` and `base_request_headers`. The classes
whose names say `Downloading` have it already, and the option `url`.

The harness of `n6_stateful.testing` tests each shape in the same way: `harness.run(source)` is given what the
source has, and puts it in the place of the method that gets it there:

| shape | in the place of | `source` |
|---|---|---|
| `rows` | `obtain_orig_data` | the whole file, bytes |
| `items`, `feed` | `obtain_items` | a list of the items |
| `pages` | `download_page` | a list of pages, each of them a list of records; the cursor counts records |
| `list` | `obtain_data_body` | the whole body, bytes |
| `email` | standard input | the mail, bytes |

An exception is raised instead, a function takes the method's place, and `...` leaves the method as it is.
`harness.assert_stateful_contract(source, later)` needs no more than what the source has at first, and later.
"""

from typing import Any

# `as` exports a name, for type checkers, without a second list of them all.
from n6_stateful.bases.answer import Answer as Answer
from n6_stateful.bases.answer import DownloadError as DownloadError
from n6_stateful.bases.base import PAGE
from n6_stateful.bases.base import BaseCollector as BaseCollector
from n6_stateful.bases.base import CollectorConfigMixin as CollectorConfigMixin
from n6_stateful.bases.base import StatefulCollectorMixin as StatefulCollectorMixin
from n6_stateful.bases.base import add_collector_entry_point_functions as add_collector_entry_point_functions
from n6_stateful.bases.base import combined_config_spec as combined_config_spec
from n6_stateful.bases.base import extract_field_from_csv_row as extract_field_from_csv_row
from n6_stateful.bases.base import split_csv_row as split_csv_row
from n6_stateful.bases.downloading import BaseDownloadingCollector as BaseDownloadingCollector
from n6_stateful.bases.emails import BaseSimpleEmailCollector as BaseSimpleEmailCollector
from n6_stateful.bases.feeds import BaseFeedCollector as BaseFeedCollector
from n6_stateful.bases.items import BaseSeenItemsCollector as BaseSeenItemsCollector
from n6_stateful.bases.lists import BaseDownloadingListCollector as BaseDownloadingListCollector
from n6_stateful.bases.pages import BasePagedCollector as BasePagedCollector
from n6_stateful.bases.pages import CursorForgottenError as CursorForgottenError
from n6_stateful.bases.pages import Page as Page
from n6_stateful.bases.rows import (
    BaseDownloadingTimeOrderedRowsCollector as BaseDownloadingTimeOrderedRowsCollector,
)
from n6_stateful.bases.rows import BaseTimeOrderedRowsCollector as BaseTimeOrderedRowsCollector
from n6_stateful.bases.two_phase import BaseSimpleCollector as BaseSimpleCollector
from n6_stateful.bases.two_phase import BaseTwoPhaseCollector as BaseTwoPhaseCollector
from n6_stateful.collector import AbstractBaseCollector as AbstractBaseCollector

_exported = {name for name, value in globals().items() if "n6_stateful" in getattr(value, "__module__", "")}
__all__ = sorted(_exported)

# What n6's own collectors import from other modules than that of the base classes, and is not here.
_ONLY_IN_N6 = "Config ConfigMixin ConfigSection FilePagedSequence LegacyQueuedBase OPSet ParsedEmailMessage"
_ONLY_IN_N6 += " RequestPerformer ascii_str attr_required first_regex_search parse_iso_datetime_to_utc"


def __getattr__(name: str) -> Any:
    if name in _ONLY_IN_N6.split():
        raise ImportError(f"n6_stateful.bases has no {name}: {PAGE} says what to do instead")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
