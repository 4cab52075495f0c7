"""How long work says where it is."""

from collections.abc import Callable

Progress = Callable[[str, float], None]
"""Called with what is done now and the share (0-1) of it that is behind."""


def silent(_what: str, _share: float) -> None:
    """Tells nobody."""
