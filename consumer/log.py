"""Logging: structlog, JSON lines off a terminal, coloured on one; one event name per fact, facts as keys.

Called once by the root of the program. Product ids may be logged, titles never at info; addresses without their query.
"""

import logging
import sys
from typing import Final, Literal, TextIO

import structlog

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "text"]


# Without local variables: a title or a password may stand in one.
_tracebacks: Final = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


def configure_logging(level: Level = "info", format: Format = "auto", stream: TextIO | None = None) -> None:  # noqa: A002 (the setting's name)
    """Send all log lines to `stream` (default: what is stderr at the time, so that stdout stays for results)."""
    target = stream or sys.stderr
    text = format == "text" or (format == "auto" and target.isatty())
    renderer = structlog.dev.ConsoleRenderer(colors=target.isatty()) if text else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if text else [_tracebacks]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_: structlog.PrintLogger(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
