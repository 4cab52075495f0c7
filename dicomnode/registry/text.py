"""Header values as the database can hold them."""

from collections.abc import Mapping


def header_text(attributes: Mapping[str, str], keyword: str) -> str:
    """The attribute, or "". Without what databases refuse: NUL padding, and surrogates that a wrong character set leaves."""
    return clean(attributes.get(keyword, ""))


def clean(value: str) -> str:
    """`value` as valid UTF-8 text without NUL."""
    return value.replace("\0", "").encode("utf-8", "replace").decode().strip()


def whole_number(value: str) -> int | None:
    """An IS value; None where it is empty, several, or no number that a 32-bit column holds (PS3.5 6.2: IS)."""
    try:
        number = int(value.strip())
    except ValueError:
        return None
    return number if -(2**31) <= number < 2**31 else None
