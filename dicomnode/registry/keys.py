"""Keys that people and logs use: S12 a study, E34 a series, J56 a job, D78 a delivery, A90 an association."""

import re

from dicomnode.domain.errors import UsageError

_KEY = re.compile(r"([SEJDA])(\d{1,18})", re.IGNORECASE)


def split(text: str) -> tuple[str, int] | None:
    """("J", 56) of "J56" or "j56"; None if `text` is no key."""
    match = _KEY.fullmatch(text.strip())
    return (match[1].upper(), int(match[2])) if match else None


def row_id(key: str, letter: str) -> int:
    """The row's id of a key of this kind; UsageError otherwise."""
    parts = split(key)
    if parts is None or parts[0] != letter:
        raise UsageError(f"{key!r} is no key of the form {letter}12", "`dicomnode studies` and `dicomnode explain` show keys")
    return parts[1]
