"""Who is left out of a training: each patient on one side, and nobody from whom the weights learned that it starts with."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dicomnode.domain.errors import UsageError
from dicomnode.learning.kept import KeptImages
from dicomnode.learning.splitting import COLUMNS, SPLIT, Base, base_of, left_out, split
from dicomnode.learning.tables import read_table
from tests.imaging.writing import COMPUTED_RADIOGRAPHY, image, save


def table(folder: Path, lines: list[tuple[str, str, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "patient", "label"), *lines])


def patients(*numbers: int) -> list[tuple[str, str, str]]:
    return [(f"{label}{number}", f"{label} {number}", label) for label in ("Disc", "Ring") for number in numbers]


def trained(folder: Path, lines: list[tuple[str, str, str]], seed: int = 3, **plan: object) -> Path:
    """A bundle as training leaves it, with its table beside its configuration."""
    table(folder / "configs", lines)
    made = {"kind": "classifier", "cases": "cases.csv", **plan}
    decided = split(read_table(folder, made, COLUMNS)[1], made, seed, base_of(folder, made))
    (folder / "configs" / "train.json").write_text(json.dumps({**made, SPLIT: decided}))
    return folder


def radiograph(folder: Path, patient_id: str | None, study: str) -> None:
    folder.mkdir()
    data_set = image(COMPUTED_RADIOGRAPHY, np.zeros((4, 4), np.uint16), "2.25.9")
    data_set.Modality, data_set.PatientID, data_set.StudyInstanceUID = "CR", patient_id, study
    if patient_id is None:
        del data_set.PatientID
    save(folder, [data_set])


def test_who_a_case_is_of_is_said_by_the_table_else_by_patient_id_else_by_the_study(tmp_path: Path) -> None:
    for name, patient_id in (("named", "X1"), ("known", " P7 "), ("again", "P7"), ("empty", ""), ("absent", None)):
        radiograph(tmp_path / name, patient_id, f"2.25.{len(name)}")
    lines = [("named", "Somebody", "Disc"), *((name, "", "Disc") for name in ("known", "again", "empty", "absent", "nowhere"))]
    table(tmp_path / "configs", [(f"../{path}", *rest) for path, *rest in lines])  # type: ignore[misc]
    found = [line["patient"] for line in read_table(tmp_path, {}, COLUMNS)[1]]
    assert found == ["Somebody", "P7", "P7", "2.25.5", "2.25.6", "../nowhere"]


def test_nobody_from_whom_the_base_learned_is_left_out(tmp_path: Path) -> None:
    base = trained(tmp_path / "base", patients(*range(8)))
    before = left_out(read_table(base, {}, COLUMNS)[1], {}, 3, Base())
    lines = patients(*range(12))
    folder = trained(tmp_path / "next", lines, base="../../base")
    plan = {"base": "../../base", "left_out": 0.9}
    found = base_of(folder, plan)
    assert found.known == {patient for _, patient, _ in patients(*range(8))} - before
    chosen = left_out(read_table(folder, plan, COLUMNS)[1], plan, 5, found)
    assert chosen == {patient for _, patient, _ in lines} - found.known
    assert found.doubt == {}
    # And whoever starts from that one starts from both.
    last = base_of(tmp_path / "last", {"base": str(folder)})
    assert last.known >= found.known
    assert last.patients is not None


def test_a_label_all_of_whose_patients_the_base_has_seen_is_refused(tmp_path: Path) -> None:
    base = trained(tmp_path / "base", patients(*range(8)))
    learned = sorted(base_of(tmp_path, {"base": str(base)}).known)
    lines = [{"patient": one, "label": one.split()[0]} for one in learned]
    with pytest.raises(UsageError, match="learned from every patient of Disc") as raised:
        left_out(lines, {}, 0, base_of(tmp_path, {"base": str(base)}))
    assert raised.value.remedy


@pytest.mark.parametrize("plan", [{"base_weights": "w.safetensors"}, {"base": "nowhere"}, {"base": "base"}])
def test_a_base_of_which_nobody_knows_whom_it_learned_from_stands_beside_the_figures(
    tmp_path: Path, plan: dict[str, str]
) -> None:
    base = trained(tmp_path / "base", patients(*range(8)))
    table(base / "configs", patients(*range(9)))  # another table than it was trained on
    found = base_of(tmp_path, {key: str(tmp_path / value) for key, value in plan.items()})
    assert found.patients is None
    assert "not known" in found.doubt["doubt"]


def test_of_bundles_that_name_each_other_as_their_base_nobody_knows(tmp_path: Path) -> None:
    one, other = (trained(tmp_path / name, patients(*range(8))) for name in ("one", "other"))
    for bundle, base in ((one, other), (other, one)):
        plan = json.loads((bundle / "configs" / "train.json").read_text())
        (bundle / "configs" / "train.json").write_text(json.dumps({**plan, "base": str(base)}))
    assert base_of(one, {"base": str(one)}).patients is None
    assert base_of(one, {"base": str(other)}).patients is None


def test_a_base_that_came_between_changes_what_is_written_of_the_split(tmp_path: Path) -> None:
    base = trained(tmp_path / "base", patients(*range(8)))
    folder = trained(tmp_path / "next", patients(*range(12)), base="../../base")
    plan = json.loads((folder / "configs" / "train.json").read_text())
    lines = read_table(folder, plan, COLUMNS)[1]
    assert split(lines, plan, 3, base_of(folder, plan)) == plan[SPLIT]
    (base / "configs" / "cases.csv").unlink()
    assert split(lines, plan, 3, base_of(folder, plan)) != plan[SPLIT]


def anonymous_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def test_kept_images_take_no_memory_of_their_own(tmp_path: Path) -> None:
    size, count = (1, 1024, 1024), 48  # 192 MiB
    before = anonymous_bytes()
    with KeptImages(tmp_path) as kept:
        images = [kept.keep(torch.full(size, float(number))) for number in range(count)]
        assert [float(one.sum()) for one in images] == [number * 1024 * 1024 for number in range(count)]
        assert anonymous_bytes() - before < 48 << 20
        images[0] += 1  # an augmentation may: the disk keeps what it was
        assert float(images[1].mean()) == 1.0
    assert not list(tmp_path.iterdir())


def test_a_training_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError), KeptImages(tmp_path / "new" / "out"):
        raise UsageError("no", "yes")
    assert not list(tmp_path.iterdir())
