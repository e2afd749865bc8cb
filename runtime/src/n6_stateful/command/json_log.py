"""`--log-format json`: a log for machines, by python-json-logger."""

from __future__ import annotations

from typing import Any

from n6_stateful.config import masked_url_text
from n6_stateful.extras import needs_extra

try:
    from pythonjsonlogger.json import JsonFormatter
except ImportError as exc:
    raise needs_extra("--log-format json", "json", exc) from exc


class MaskingJsonFormatter(JsonFormatter):
    """An object a line, with a traceback inside; hides the secrets in URLs, as `MaskingFormatter` does."""

    def __init__(self) -> None:
        super().__init__(["levelname", "name", "message"], style=",", timestamp=True)

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """What the object will hold."""
        return {
            name: masked_url_text(value) if isinstance(value, str) else value
            for name, value in super().process_log_record(log_data).items()
        }
