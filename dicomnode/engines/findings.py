"""What `pipelines check` says of a folder."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """One thing that `pipelines check` says. A folder with no finding of level "error" can be loaded."""

    level: Literal["error", "warning", "info"]
    what: str
    remedy: str = ""
