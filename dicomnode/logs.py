"""Operational logs: events with fields from an allow-list, on stderr, free of patient data and UIDs.

Enters: structlog events of our own rooms, records of other libraries' loggers, Python warnings, uncaught exceptions. Leaves:
one line each, key=value or JSON. Promises: a field that the table below does not name, or whose value does not look as it says,
is dropped; of foreign messages only logger, level and place remain, of exceptions only class and place, because their texts may
quote what a patient's header holds. Who did what to which study is the audit trail's business, a separate sink.
"""

import logging
import re
import sys
import threading
import time
import traceback
import warnings
from collections.abc import MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO

import structlog

type_event = MutableMapping[str, Any]

_WORD = r"[A-Za-z0-9_.:+/@<> -]{0,80}"
_NUMBER = r"-?\d+(\.\d+)?([eE][+-]?\d+)?"
# Field → what its value looks like. Names of peers, destinations, routes and pipelines come from the settings file.
FIELDS = {
    "event": r"[A-Za-z][A-Za-z0-9 _,;:'()/-]{0,100}",
    "level": r"[a-z]+",
    "time": r"[0-9TZ:.+-]+",
    "role": r"[a-z]+",
    "logger": r"[A-Za-z0-9_.]+",
    "study": r"S\d+",
    "series": r"E\d+",
    "job": r"J\d+",
    "delivery": r"D\d+",
    "association": r"A\d+",
    "status": r"(0x)?[0-9A-Fa-f]{1,4}",
    "code": r"[a-z_]+",
    "error": r"[A-Za-z_][A-Za-z0-9_.]*",
    "signal": r"SIG[A-Z0-9]+",
    **dict.fromkeys(("worker", "state", "outcome", "kind", "device", "task", "setting", "where", "how", "command"), _WORD),
    **dict.fromkeys(("destination", "peer", "route", "pipeline", "version", "revision", "host", "address", "digest"), _WORD),
    **dict.fromkeys(("pid", "port", "attempt", "attempts", "exit_code", "restarts", "line", "suppressed"), r"-?\d+"),
}
_QUANTITY = re.compile(
    r"[a-z]+(_[a-z]+)*_(s|mb|ml|bytes|count)|count|instances|images|results|deliveries|jobs|orphans|missing|corrupt"
)
_UID = re.compile(r"\d+(\.\d+){3,}")
_IP_ADDRESS = re.compile(r"\d{1,3}(\.\d{1,3}){3}")
_PACKAGE = Path(__file__).resolve().parent
_REPEAT_AFTER_S = 60.0


def allowed(key: str, value: object) -> bool:
    """Whether this field may stand in an operational log."""
    if value is None or isinstance(value, bool):
        return key in FIELDS or _QUANTITY.fullmatch(key) is not None
    pattern = FIELDS.get(key) or (_NUMBER if _QUANTITY.fullmatch(key) else None)
    text = str(value)
    if pattern is None or re.fullmatch(pattern, text) is None:
        return False
    return _UID.search(text) is None or (key in {"host", "address"} and _IP_ADDRESS.fullmatch(text) is not None)


def _only_allowed(_logger: object, _method: str, event: type_event) -> type_event:
    kept = {key: value for key, value in event.items() if allowed(key, value)}
    kept.setdefault("event", "an event with a text that may not be logged")
    return kept


def frames(tail: TracebackType | None) -> str:
    """The places of a traceback, innermost last, without source lines: "roles/work.py:88 imaging/load.py:41"."""
    places = []
    for frame, line in traceback.walk_tb(tail):
        path = Path(frame.f_code.co_filename)
        ours = path.is_relative_to(_PACKAGE)
        places.append(f"{path.relative_to(_PACKAGE) if ours else Path(*path.parts[-2:])}:{line}")
    return " ".join(places[-3:])[-80:]


def _reduce_exception(_logger: object, _method: str, event: type_event) -> type_event:
    """Class and places in place of the text: exception texts quote values of data sets."""
    given = event.pop("exc_info", None)
    if given is True:
        given = sys.exc_info()[1]
    if isinstance(given, tuple):
        given = given[1]
    if isinstance(given, BaseException):
        event["error"] = type(given).__name__
        event["where"] = frames(given.__traceback__)
    return event


def _stamp(_logger: object, _method: str, event: type_event) -> type_event:
    return {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **event}


class _Repeats:
    """Says each place at most once a minute and counts what it kept back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}

    def suppressed(self, place: tuple[str, int]) -> int | None:
        """How many were kept back since the last one said; None: keep this one back too."""
        now = time.monotonic()
        with self._lock:
            last, kept_back = self._seen.get(place, (-_REPEAT_AFTER_S, 0))
            if now - last < _REPEAT_AFTER_S:
                self._seen[place] = (last, kept_back + 1)
                return None
            self._seen[place] = (now, 0)
            return kept_back


class _Foreign(logging.Handler):
    """Other libraries' records, reduced to logger, level, exception class and place."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._repeats = _Repeats()

    def emit(self, record: logging.LogRecord) -> None:
        """One line, without the message: it may hold names, UIDs or whole data sets."""
        suppressed = self._repeats.suppressed((record.pathname, record.lineno))
        if suppressed is None:
            return
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        structlog.get_logger().log(
            record.levelno,
            "a library reported something",
            logger=record.name,
            where=f"{Path(record.pathname).name}:{record.lineno}",
            **({"error": error} if error else {}),
            **({"suppressed": suppressed} if suppressed else {}),
        )


def configure(
    role: str, *, level: str = "info", form: Literal["auto", "text", "json"] = "auto", stream: TextIO | None = None
) -> None:
    """Let everything that this process logs go through here. `role` stands in every line."""
    stream = stream or sys.stderr
    text = form == "text" or (form == "auto" and stream.isatty())
    renderer: Any = (
        structlog.processors.LogfmtRenderer(key_order=["time", "level", "role", "event"], bool_as_flag=False)
        if text
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _role(role),
            structlog.processors.add_log_level,
            _reduce_exception,
            _stamp,
            _only_allowed,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    take_over_libraries()
    sys.excepthook = _uncaught
    sys.unraisablehook = lambda unraisable: _uncaught(unraisable.exc_type, unraisable.exc_value, unraisable.exc_traceback)
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _role(role: str) -> Any:
    def add(_logger: object, _method: str, event: type_event) -> type_event:
        event["role"] = role
        return event

    return add


def take_over_libraries() -> None:
    """Route every stdlib logger and warning through the reduced form; again after a library was loaded that adds handlers."""
    root = logging.getLogger()
    if not any(isinstance(handler, _Foreign) for handler in root.handlers):
        root.handlers[:] = [_Foreign()]
    root.setLevel(logging.WARNING)
    for name in list(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # Else Python keeps each different text that it has shown, and texts quote what a peer sent: memory without end.
    warnings.filterwarnings("always", category=UserWarning)
    warnings.showwarning = _warning


_warnings_said = _Repeats()


def _warning(
    message: Warning | str,  # noqa: ARG001 - texts are never logged
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    if (suppressed := _warnings_said.suppressed((filename, lineno))) is not None:
        fields = {"suppressed": suppressed} if suppressed else {}
        where = f"{Path(filename).name}:{lineno}"
        structlog.get_logger().warning("a library warned", error=category.__name__, where=where, **fields)


def _uncaught(kind: type[BaseException], error: BaseException | None, tail: TracebackType | None) -> None:
    structlog.get_logger().error(
        "uncaught exception", error=kind.__name__, where=frames(tail or (error and error.__traceback__) or None)
    )
