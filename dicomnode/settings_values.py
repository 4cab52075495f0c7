"""What single values of the settings file may be."""

from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field


def _ae_title(text: str) -> str:
    """PS3.5 6.2, VR AE: 1 to 16 characters of the default repertoire, no backslash, no control; outer spaces do not count."""
    text = text.strip()
    if not 1 <= len(text) <= 16 or "\\" in text or not text.isascii() or not text.isprintable():
        raise ValueError("an AE title has 1 to 16 ASCII characters and no backslash")
    return text


def zone(name: str | None) -> str | None:
    """An IANA name that this machine knows."""
    if name is not None:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("this is no IANA time zone such as Europe/Berlin") from None
    return name


def uid_root_text(root: str | None) -> str | None:
    """PS3.5 9.1, short enough for what follows it."""
    # A root plus "." plus a 96-bit number (29 digits) must stay within 64 characters (PS3.5 9.1).
    if root is not None and (
        len(root) > 34 or not all(part.isdecimal() and str(int(part)) == part for part in root.split("."))
    ):
        raise ValueError("a UID root has at most 34 characters: numbers without leading zeros, joined by dots")
    return root


def database_url_text(url: str | None) -> str | None:
    """A database that outlives its process."""
    if url is not None and url.startswith("sqlite"):
        path = url.partition(":///")[2].partition("?")[0]
        if not path or path.startswith(":memory:"):  # each role would have its own, and none would be kept
            raise ValueError("an SQLite database needs a file: sqlite:////absolute/path.db")
    return url


def _device(name: str) -> str:
    if name not in {"auto", "cpu", "cuda"} and not (name.startswith("cuda:") and name[5:].isdecimal()):
        raise ValueError('use "auto", "cpu", "cuda" or one of several as "cuda:1"')
    return name


def _host(name: str) -> str:
    if not name or not name.isprintable() or " " in name:
        raise ValueError("give a host name or an IP address")
    return name


def _texts(value: object) -> object:
    """One text or number, or a list of them → a tuple of texts."""
    values = value if isinstance(value, list | tuple) else (value,)
    if not all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in values):
        raise ValueError("give a text, a number or a list of these")
    return tuple(str(one) for one in values)


def _sop_class(text: str) -> str:
    from dicomnode.domain.sop_classes import extra_storage_class  # brings pydicom, which status and its like need not load

    return extra_storage_class(text)


def _transfer_syntax(text: str) -> str:
    from dicomnode.domain.transfer_syntaxes import transfer_syntax_uid  # pydicom, too

    return transfer_syntax_uid(text)


AETitle = Annotated[str, AfterValidator(_ae_title)]
Host = Annotated[str, AfterValidator(_host)]
Device = Annotated[str, AfterValidator(_device)]
SopClass = Annotated[str, AfterValidator(_sop_class)]
TransferSyntax = Annotated[str, AfterValidator(_transfer_syntax)]
Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]
