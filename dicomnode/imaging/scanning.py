"""Files and folders → series: reads headers only, and says of every file that it leaves out why."""

import os
import stat
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dicomnode.domain.imaging import InstanceRef, SeriesRef
from dicomnode.imaging.classes import class_name, never_an_image
from dicomnode.imaging.headers import text
from dicomnode.imaging.part10 import NotDicom, UnreadableDicom, read_header

_MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"


@dataclass(frozen=True, slots=True)
class Scan:
    """Series in the order in which their first file was met, and (file, reason in words) for every file left out."""

    series: tuple[SeriesRef, ...]
    ignored: tuple[tuple[Path, str], ...]


class _Ignored(Exception):
    """The text is the reason."""


def scan(paths: Iterable[Path]) -> Scan:
    """The series in files and folders, folders with all that is below them. Never raises for what a file contains."""
    found: dict[tuple[str, str], list[InstanceRef]] = {}
    ignored: list[tuple[Path, str]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom quotes values of the header in its warnings
        for path in _files(paths):
            _take(path, found, ignored)
    series_refs = tuple(SeriesRef(study, series, tuple(instances)) for (study, series), instances in found.items())
    return Scan(series_refs, tuple(ignored))


def _take(path: Path, found: dict[tuple[str, str], list[InstanceRef]], ignored: list[tuple[Path, str]]) -> None:
    try:
        study, series, instance = _identify(path)
    except (_Ignored, NotDicom, UnreadableDicom) as reason:
        ignored.append((path, str(reason)))
    except OSError as error:
        ignored.append((path, f"cannot be opened ({error.strerror or type(error).__name__})"))
    else:
        found.setdefault((study, series), []).append(instance)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for folder, folders, names in os.walk(path):
            folders.sort()
            yield from (Path(folder, name) for name in sorted(names))


def _identify(path: Path) -> tuple[str, str, InstanceRef]:
    """Study and Series Instance UID, and the instance. Raises _Ignored, NotDicom, UnreadableDicom, OSError."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise _Ignored("not a regular file")  # opening a pipe would wait for ever
    header = read_header(path)
    try:
        sop_class = text(header.data_set, "SOPClassUID") or text(header.meta, "MediaStorageSOPClassUID")
        uids = [text(header.data_set, keyword) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
        frames = text(header.data_set, "NumberOfFrames")
    except Exception as error:
        # pydicom converts values late: whatever a broken one raises, it is this file's fault.
        raise UnreadableDicom(f"a header value cannot be understood ({type(error).__name__})") from error
    if sop_class == _MEDIA_STORAGE_DIRECTORY:
        raise _Ignored("a DICOMDIR, the directory of a medium")
    if sop_class and never_an_image(sop_class):
        raise _Ignored(f"not an image: {class_name(sop_class)}")
    if not sop_class or not all(uids):
        raise _Ignored("no SOP Class, Study, Series or SOP Instance UID: not a complete DICOM object")
    study, series, sop_instance = uids
    return study, series, InstanceRef(sop_instance, sop_class, path, int(frames) if frames.isdecimal() else 1)
