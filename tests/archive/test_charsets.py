"""Names in every character set: asked for as their own header writes them, answered so that others read them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from dicomnode.archive.matching import folded_name
from tests.archive.holding import STUDY_ROOT, Holding, find, identifier
from tests.receiving.reception import context
from tests.receiving.samples import encoded, store_bytes

# Their character sets stand in items of a sequence, or they hold no object.
WITHOUT_IDENTITY = {"chrSQEncoding.dcm", "chrSQEncoding1.dcm", "empty_charset.dcm"}


def sources(test_data: Path) -> list[Path]:
    return [path for path in sorted((test_data / "charsets").glob("*.dcm")) if path.name not in WITHOUT_IDENTITY]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, test_data: Path) -> Iterator[Holding]:
    one = Holding(tmp_path_factory.mktemp("charsets"))
    for path in sources(test_data):
        image = dcmread(path)
        image.StudyInstanceUID = study_of(path)  # some share a study, though not the patient
        image.SOPInstanceUID = f"{study_of(path)[:60]}.1"
        syntax = str(image.file_meta.TransferSyntaxUID)
        with one.reception.associated(context(image.SOPClassUID, syntax)) as association:
            sent = store_bytes(association, image.SOPClassUID, image.SOPInstanceUID, encoded(image, syntax))
            assert sent.Status == 0, path.name
    yield one
    one.stop()


def study_of(path: Path) -> str:
    return str(generate_uid(entropy_srcs=[path.name]))


def name_of(header: Dataset) -> str:
    """As pydicom reads it; without empty groups at the end."""
    encodings = convert_encodings(header.get("SpecificCharacterSet") or "")
    raw = header.get_item("PatientName").value
    return decode_bytes(raw, encodings, {0x5C, 0x5E, 0x3D}).rstrip("= ")


def test_every_name_is_found_as_its_own_header_writes_it_and_in_utf_8(archive: Holding, test_data: Path) -> None:
    found = 0
    with archive.asking(STUDY_ROOT) as association:
        for path in sources(test_data):
            header = dcmread(path, stop_before_pixels=True)
            if "PatientName" not in header or not (name := name_of(header)):
                continue
            own = header.get("SpecificCharacterSet") or "ISO_IR 6"
            for character_set in (own, "ISO_IR 192"):
                if path.name == "lena-shift-jis.dcm" and character_set == own:
                    continue  # its text is more than ISO_IR 13 can say
                for asked in {name, name.split("=")[-1].split("^")[0] + "*", name.upper() if character_set != own else name}:
                    wanted = identifier("STUDY", SpecificCharacterSet=character_set, PatientName=asked, StudyInstanceUID="")
                    matches, statuses = find(association, wanted, STUDY_ROOT)
                    assert statuses[-1] == 0, path.name
                    ours = [one for one in matches if one.StudyInstanceUID == study_of(path)]
                    assert len(ours) == 1, (path.name, character_set, asked)
                    ours[0].decode()
                    assert folded_name(str(ours[0].PatientName)) == folded_name(name), (path.name, character_set)
                    found += 1
    assert found > 60
