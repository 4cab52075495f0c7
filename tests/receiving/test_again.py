"""The same SOP Instance UID again: duplicates, repairs, contradictions, and our own results."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import SegmentationStorage, generate_uid

from dicomnode.domain.equipment import CONTRIBUTION_DESCRIPTION, MANUFACTURER
from dicomnode.domain.errors import DatabaseUnreachable
from dicomnode.domain.uids import PHANTOM_MARK, derived_uid
from dicomnode.registry import Registry
from dicomnode.storage import Store
from tests.receiving.reception import Reception, context, data_set_of
from tests.receiving.samples import CT, ELE, ILE, changed, ct, encoded, saved, store, store_bytes

SEG = str(SegmentationStorage)


@pytest.fixture(params=["parallel", "serial"])
def reception(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Reception]:
    """A started node, in either order of keeping."""
    one = Reception(tmp_path / "node")
    one.store = Store(one.root, reserve_bytes=0, order=request.param)
    with one:
        yield one


def send(reception: Reception, *images: Dataset) -> list[int]:
    classes = sorted({str(image.SOPClassUID) for image in images})
    with reception.associated(*(context(uid, ELE) for uid in classes)) as association:
        return [store(association, image, context_index=classes.index(str(image.SOPClassUID))).Status for image in images]


def conflicts_of(reception: Reception) -> list[str]:
    """Kinds of the conflicts that the registry holds, by the folders of the files that it names."""
    paths = [path for path, _, _ in reception.registry.known_files() if path.parts[0] == "quarantine"]
    return [path.parts[1] for path in paths]


def test_the_same_again_is_success_and_no_new_work(reception: Reception) -> None:
    image = ct()
    assert send(reception, image, image) == [0, 0]
    assert len(reception.files()) == 1
    assert conflicts_of(reception) == []


@pytest.mark.parametrize("damage", ["removed", "overwritten", "cut"])
def test_the_same_again_restores_bytes_that_are_gone_or_damaged(reception: Reception, damage: str) -> None:
    image = ct()
    send(reception, image)
    path = reception.store.absolute(reception.known(image.SOPInstanceUID).path)
    if damage == "removed":
        path.unlink()
    elif damage == "cut":
        os.truncate(path, 500)
    else:
        with path.open("r+b") as file:
            file.seek(-10, os.SEEK_END)
            file.write(b"x" * 10)
    assert send(reception, image) == [0]
    assert reception.kept_data_set(image.SOPInstanceUID) == encoded(image)


def test_the_same_instance_on_eight_associations_at_once_is_kept_once(tmp_path: Path, reception: Reception) -> None:
    path = saved(image := ct(), tmp_path)
    statuses: list[int | None] = []
    threads = [threading.Thread(target=lambda: statuses.extend(reception.send(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0] * 8
    assert len(reception.files()) == 1
    assert reception.kept_data_set(image.SOPInstanceUID) == data_set_of(path)


def test_other_private_elements_or_another_uncompressed_syntax_are_a_duplicate_kept_aside(reception: Reception) -> None:
    image = ct()
    private = changed(image)
    private.private_block(0x0009, "TEST", create=True).add_new(1, "LO", "travelled")
    assert send(reception, image, private) == [0, 0]
    with reception.associated(context(CT, ILE)) as association:
        assert store_bytes(association, CT, image.SOPInstanceUID, encoded(image, ILE)).Status == 0
    assert reception.kept_data_set(image.SOPInstanceUID) == encoded(image)
    assert conflicts_of(reception) == []
    aside = [data_set_of(path) for path in reception.files("quarantine")]
    assert sorted(aside) == sorted([encoded(private), encoded(image, ILE)])


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"PatientName": "Test^Corrected"}, "header"),
        ({"AccessionNumber": "ACC2"}, "header"),
        ({"PixelData": bytes(512)}, "pixels"),
        ({"ImagePositionPatient": [0, 0, 5]}, "geometry"),
        ({"RescaleIntercept": 0}, "geometry"),
        ({"SeriesInstanceUID": "1.2.3.4"}, "geometry"),
    ],
)
def test_other_content_is_kept_aside_by_what_differs(reception: Reception, change: dict[str, object], kind: str) -> None:
    image = ct()
    other = changed(image, **change)
    assert send(reception, image, other) == [0, 0]
    assert conflicts_of(reception) == [kind]
    assert reception.kept_data_set(image.SOPInstanceUID) == encoded(image)
    assert [data_set_of(path) for path in reception.files("quarantine")] == [encoded(other)]


def test_a_lying_polarity_under_the_same_uid_is_a_conflict(test_data: Path, reception: Reception) -> None:
    first, lying = (test_data / "objects" / name for name in ("cr_chest_pa_rsna.dcm", "cr_chest_pa_rsna_labelled_mono1.dcm"))
    assert reception.send(first) == [0]
    assert reception.send(lying) == [0]
    assert conflicts_of(reception) == ["geometry"]


def result(**attributes: object) -> Dataset:
    """A data set of a class in which results are written."""
    return ct(SOPClassUID=SEG, Modality="SEG", **attributes)


def our_equipment() -> Sequence:
    item = Dataset()
    item.Manufacturer, item.ContributionDescription = MANUFACTURER, CONTRIBUTION_DESCRIPTION
    return Sequence([item])


@pytest.mark.parametrize(
    ("make", "ours"),
    [
        (lambda: result(SOPInstanceUID=derived_uid(["a"])), True),
        (lambda: result(ContributingEquipmentSequence=our_equipment()), True),
        (lambda: ct(ContributingEquipmentSequence=our_equipment()), False),  # not a class in which we write results
        (result, False),
        (lambda: ct(SOPInstanceUID=derived_uid(["a"], mark=PHANTOM_MARK)), False),
        (lambda: ct(SOPInstanceUID=f"2.25.{0xABCDEF << 80}"), False),
    ],
    ids=["mark", "equipment", "equipment in a CT", "somebody's SEG", "phantom", "another 2.25"],
)
@pytest.mark.parametrize("syntax", [ELE, ILE])
def test_our_own_results_are_known_again_and_others_are_not(
    reception: Reception, make: Callable[[], Dataset], ours: bool, syntax: str
) -> None:
    image = make()
    with reception.associated(context(image.SOPClassUID, syntax)) as association:
        sent = store_bytes(association, image.SOPClassUID, image.SOPInstanceUID, encoded(image, syntax))
    assert sent.Status == 0
    assert reception.known(image.SOPInstanceUID).ours is ours


def test_a_result_that_the_registry_knows_is_ours_without_any_mark(reception: Reception) -> None:
    image = result(SOPInstanceUID=generate_uid())

    class Knowing(Registry):
        def is_our_result(self, sop_instance_uid: str) -> bool:
            return sop_instance_uid == image.SOPInstanceUID

    reception.registry.__class__ = Knowing  # type: ignore[assignment]
    assert send(reception, image) == [0]
    assert reception.known(image.SOPInstanceUID).ours


def test_our_result_changed_by_an_archive_is_stored_and_never_a_conflict(reception: Reception) -> None:
    image = result(SOPInstanceUID=derived_uid(["b"]))
    coerced = changed(image, PatientName="Coerced^By^PACS", PixelData=bytes(512))
    assert send(reception, image, coerced) == [0, 0]
    assert conflicts_of(reception) == []
    assert reception.files("quarantine") == []
    assert reception.kept_data_set(image.SOPInstanceUID) == encoded(coerced)
    assert len(reception.files()) == 1


def test_a_contradiction_that_was_acknowledged_outlives_its_failing_repetition(
    reception: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = ct()
    other = changed(image, PixelData=bytes(512))
    assert send(reception, image, other) == [0, 0]

    def away(*_: object) -> None:
        raise DatabaseUnreachable("the database does not answer", "wait")

    monkeypatch.setattr(reception.registry, "record_conflict", away)
    assert send(reception, other) == [0x0110]
    assert [data_set_of(path) for path in reception.files("quarantine")] == [encoded(other)]
