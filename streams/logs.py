"""Logging: one handler, JSON or console lines, secrets masked. It chooses the form; what is said is the caller's.

Loggers are named by module, so all of ours hang under `spendbrake`; libraries speak from WARNING on. An event is
a fixed name with fields: `logger.info("policy_applied", version=3)`.
"""

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from spendbrake.streams.secrets import API_TOKEN, MASK

ROOT = "spendbrake"
SECRET_NAME = re.compile(r"(^|_)(secret|token|password|authorization|cookie|api_key|routing_key)$", re.IGNORECASE)
URL_PASSWORD = re.compile(r"(?<=://)([^\s/:@]*):[^\s/@]+@")


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask fields named like a secret, and passwords inside URLs.

    Examples:
        >>> mask_secrets(None, "info", {"slack_token": "xoxb-1", "input_tokens": 7, "url": "redis://me:pw@cache"})
        {'slack_token': '**********', 'input_tokens': 7, 'url': 'redis://me:**********@cache'}
    """
    for name, value in event.items():
        event[name] = MASK if SECRET_NAME.search(name) else _masked(value)
    return event


def _masked(value: Any) -> Any:
    """Return a value without what is a password or a token, however deep it lies."""
    if isinstance(value, str):
        if "://" in value:
            value = URL_PASSWORD.sub(rf"\1:{MASK}@", value)
        return API_TOKEN.sub(MASK, value) if "sb_" in value else value
    if isinstance(value, Mapping):
        return {n: MASK if isinstance(n, str) and SECRET_NAME.search(n) else _masked(v) for n, v in value.items()}
    return [_masked(each) for each in value] if isinstance(value, list | tuple) else value


def configure(level: str = "INFO", form: Literal["console", "json"] = "console", stream: TextIO | None = None) -> None:
    """Send every log record of the process to `stream` (standard error by default), replacing other handlers."""
    stream = stream or sys.stderr
    # Tracebacks become text before masking: a driver's error message may quote its URL.
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        mask_secrets,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=stream.isatty(), sort_keys=False)
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))
    logging.getLogger(ROOT).setLevel(level)
