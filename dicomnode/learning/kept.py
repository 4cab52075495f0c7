"""Preprocessed images on disk, mapped: a table may be larger than memory."""

import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch

from dicomnode.engines.heap import give_back


class KeptImages:
    """A folder of images as long as they are needed, and no longer: they are patients'.

    What `keep` gives is read from the disk as it is looked at, and its pages are free to be taken again.
    """

    def __init__(self, beside: Path) -> None:
        """beside: a folder on the disk that shall hold them; made if need be, and taken away again if it was."""
        self._made = [one for one in (beside, *beside.parents) if not one.exists()]
        beside.mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(prefix=".images-", dir=beside)
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None) -> None:
        self._folder.cleanup()
        if kind is not None:
            for one in self._made:
                with suppress(OSError):  # something else is in it by now
                    one.rmdir()

    def keep(self, image: torch.Tensor) -> torch.Tensor:
        """The same values, no longer in this process's own memory. Writing to them changes nothing on the disk."""
        give_back()  # holes that earlier images left: the next one is a few bytes too long for each (measured)
        path = Path(self._folder.name) / f"{self._count}.npy"
        self._count += 1
        np.save(path, image.numpy())
        return torch.from_numpy(np.load(path, mmap_mode="c"))
