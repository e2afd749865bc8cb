"""Base classes for common shapes of feeds; each manages its state itself.

You write one or two methods, listed below. The class does the rest: it loads the state, leaves out what was
collected before, and saves the state together with the messages.

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
`get_source_channel`) or of n6 4.x (`raw_type`, `config_spec_pattern`, `get_source`, `state_dir`); do not use
both names for one thing. If the channel is always the same, set the attribute `source_channel`; it is then
also part of the state's name. If the channel depends on the record, write
`get_source_channel(self, **processed_data)`; the state's name then has no channel.

`BaseDownloadingCollector` can be mixed in, before any of them. It adds `download(url)`, which returns a
complete answer or raises, and the options `download_retries`, `download_timeout` and `base_request_headers`.
The classes with `Downloading` in their names already include it, and have the option `url`.

The harness of `n6_stateful.testing` tests each shape in the same way: pass the source's data to
`harness.run(source)`, and it replaces the method that would fetch them:

| shape | replaces | `source` |
|---|---|---|
| `rows` | `obtain_orig_data` | the whole file, bytes |
| `items`, `feed` | `obtain_items` | a list of the items |
| `pages` | `download_page` | a list of pages, each of them a list of records; the cursor counts records |
| `list` | `obtain_data_body` | the whole body, bytes |
| `email` | standard input | the mail, bytes |

If `source` is an exception, it is raised; a function replaces the method; `...` keeps the method.
`harness.assert_stateful_contract(source, later)` only needs the source's data at first, and later.
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

# Names that n6's own collectors import from other modules of n6, and that do not exist here.
_ONLY_IN_N6 = "Config ConfigMixin ConfigSection FilePagedSequence LegacyQueuedBase OPSet ParsedEmailMessage"
_ONLY_IN_N6 += " RequestPerformer ascii_str attr_required first_regex_search parse_iso_datetime_to_utc"


def __getattr__(name: str) -> Any:
    if name in _ONLY_IN_N6.split():
        raise ImportError(f"n6_stateful.bases has no {name}: see {PAGE} for what to do instead")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
