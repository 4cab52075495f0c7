"""Which classes and syntaxes are known, and how they are proposed."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.uid import UID

from dicomnode.domain.errors import CorruptInstance, UsageError
from dicomnode.network import STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES, store_contexts_for

ELE, ILE, JPEG_LS = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.80"
CT, SEG = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.66.4"


@dataclass
class Sent:
    sop_class_uid: str
    transfer_syntax_uid: str


def test_all_storage_classes_are_known_and_non_patient_objects_are_not() -> None:
    names = {UID(uid).name for uid in STORAGE_SOP_CLASSES}
    assert {"CT Image Storage", "Segmentation Storage", "Encapsulated STL Storage", "RT Plan Storage"} <= names
    assert "1.2.840.10008.5.1.4.1.1.6" in STORAGE_SOP_CLASSES  # retired ultrasound
    assert "1.2.840.10008.5.1.4.1.1.66.7" in STORAGE_SOP_CLASSES  # Label Map Segmentation
    assert not names & {"Hanging Protocol Storage", "Color Palette Storage", "CT Defined Procedure Protocol Storage"}


def test_lossless_is_preferred_to_uncompressed_and_that_to_lossy() -> None:
    order = TRANSFER_SYNTAXES.index
    assert order(JPEG_LS) < order(ELE) < order(ILE) < order("1.2.840.10008.1.2.4.50")
    assert len(set(TRANSFER_SYNTAXES)) == len(TRANSFER_SYNTAXES) > 40


def test_each_syntax_gets_a_context_of_its_own() -> None:
    contexts = store_contexts_for([Sent(CT, ELE), Sent(CT, JPEG_LS), Sent(CT, JPEG_LS), Sent(SEG, ELE)])
    assert contexts == (
        (CT, (ELE,)),
        (CT, (ILE,)),
        (CT, (JPEG_LS,)),
        (SEG, (ELE,)),
        (SEG, (ILE,)),
    )


def test_more_than_128_contexts_are_refused_with_a_remedy() -> None:
    with pytest.raises(UsageError, match="128"):
        store_contexts_for([Sent(uid, JPEG_LS) for uid in sorted(STORAGE_SOP_CLASSES)[:129]])


def test_a_file_that_is_no_dicom_is_named(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear colleague")
    with pytest.raises(CorruptInstance, match=r"letter\.txt"):
        store_contexts_for([tmp_path / "letter.txt"])
