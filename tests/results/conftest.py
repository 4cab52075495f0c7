"""A small study with its findings, built once; tests that change something build their own."""

from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Volume
from dicomnode.domain.results import ResultKind, ResultObject
from dicomnode.results import build
from tests.results.cases import request_for, small_findings, small_series, volume_of


@dataclass(frozen=True)
class Case:
    """Sources, what was found in them, what was made of it."""

    paths: list[Path]
    volume: Volume
    findings: Findings
    objects: tuple[ResultObject, ...]

    def of_kind(self, kind: ResultKind) -> list[Dataset]:
        """The written objects of a kind, read again."""
        return [pydicom.dcmread(one.path) for one in self.objects if one.kind == kind]

    def headers(self) -> dict[str, Dataset]:
        """Source headers by SOP Instance UID."""
        return {str(one.SOPInstanceUID): one for one in map(pydicom.dcmread, self.paths)}


def make_case(paths: list[Path], findings: Findings | None, volume: Volume, folder: Path, **request: object) -> Case:
    """Builds the results of a case."""
    found = small_findings(volume) if findings is None else findings
    return Case(paths, volume, found, build(found, volume, paths, request_for(paths, **request), folder))


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Two nodules in two lungs on twelve slices."""
    folder = tmp_path_factory.mktemp("small")
    paths = small_series(folder / "ct")
    return make_case(paths, None, volume_of(paths), folder / "results")


@pytest.fixture(scope="session")
def negative(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Two lungs, no nodule."""
    folder = tmp_path_factory.mktemp("negative")
    paths = small_series(folder / "ct")
    volume = volume_of(paths)
    return make_case(paths, small_findings(volume, nodules=0), volume, folder / "results")
