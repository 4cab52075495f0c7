"""Alarms as `status` shows them."""

from collections.abc import Sequence
from datetime import datetime

from dicomnode.cli.output import say, table
from dicomnode.domain.alarms import Alarm


def alarms_as_json(alarms: Sequence[Alarm]) -> list[dict[str, object]]:
    """In the shape of the contract."""
    return [
        {
            "kind": one.kind.value,
            "subject": one.subject,
            "since": None if one.since is None else one.since.isoformat(),
            "count": one.count,
            "meaning": one.meaning,
            "detail": one.detail,
            "remedy": one.remedy,
        }
        for one in alarms
    ]


def say_alarms(alarms: Sequence[Alarm]) -> None:
    """The first thing that is read; nothing where all is well."""
    if not alarms:
        return
    say(f"{len(alarms)} alarm{'s' if len(alarms) > 1 else ''}:")
    rows = [(one.kind.value, one.subject, one.count, _time(one.since), one.detail or one.meaning, one.remedy) for one in alarms]
    table(("alarm", "subject", "count", "since", "why", "what to do"), rows)


def _time(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M} UTC"
