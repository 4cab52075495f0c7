"""One clock: aware UTC inside, local DA/TM in written objects (DESIGN: times)."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

type_clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The time, aware, in UTC."""
    return datetime.now(UTC)


def local_zone(timezone_offset_from_utc: str, node_timezone: str) -> timezone | ZoneInfo:
    """The zone of DA/TM values: the source's Timezone Offset From UTC (0008,0201) such as "+0900", else the node's zone."""
    match = re.fullmatch(r"([+-])(\d{2})(\d{2})", timezone_offset_from_utc.strip())
    if match is None:
        return ZoneInfo(node_timezone)
    sign = -1 if match[1] == "-" else 1
    return timezone(sign * timedelta(hours=int(match[2]), minutes=int(match[3])))
