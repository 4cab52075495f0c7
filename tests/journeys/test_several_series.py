"""A model that reads four MR series as channels: from C-STORE over a route to results on the first one's grid."""

from pathlib import Path

import highdicom as hd
import pydicom
import pytest

from tests.cli.conftest import command, type_command  # noqa: F401 - a fixture
from tests.engines.series import write_series
from tests.engines.test_variants import AFFINE, BRATS, DEPTH, brain, brats_config, nested
from tests.engines.zoo import write_bundle
from tests.journeys.hospital import Hospital, build_hospital, send, study_uid_of, wait_for_end
from tests.journeys.test_bundles import instances_of

DESCRIPTIONS = {"t1c": "Ax T1 +Gd", "t1": "Ax T1 SE", "t2": "Ax T2 TSE", "flair": "Ax T2 FLAIR"}
INPUTS = """
[[inputs]]
name = "t1c"
match = { SeriesDescription = "*t1*gd*" }
[[inputs]]
name = "t1"
match = { SeriesDescription = ["*t1*"] }
[[inputs]]
name = "t2"
match = { SeriesDescription = "*t2*" }
[[inputs]]
name = "flair"
match = { SeriesDescription = "*flair*" }
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rules = BRATS[: BRATS.index("[bundle]")] + INPUTS
    return write_bundle(tmp_path / "models" / "brats", brats_config(), rules, modality="MR", weigh=nested)


def write_brain(folder: Path) -> dict[str, Path]:
    """One study of four series, in an order that says nothing."""
    written = {}
    for name in ("flair", "t2", "t1c", "t1"):
        pixels = brain()[name].pixels
        written[name] = write_series(folder / name, pixels, AFFINE, "MR", name=name, description=DESCRIPTIONS[name])
    return written


def check_segmentation(path: Path, series: Path) -> None:
    """Tumour where the other series show it, on the grid of the contrast-enhanced one."""
    found = hd.seg.segread(path).get_pixels_by_source_instance(instances_of(series), combine_segments=False)
    for segment, deep in ((0, 0), (1, 3), (2, 6)):
        assert not both_differ(found[..., segment] > 0, deep < DEPTH), deep


def both_differ(one: object, other: object) -> bool:
    return bool((one != other).any())  # type: ignore[attr-defined]


def test_files_of_a_study_are_read_together(
    command: type_command,  # noqa: F811
    model: Path,
    tmp_path: Path,
) -> None:
    written = write_brain(tmp_path / "study")
    answer = command("infer", tmp_path / "study", "--pipeline", model, "--out", tmp_path / "out", "--json")
    assert answer.code == 0, answer.err
    (run,) = answer.document["runs"]
    first = str(pydicom.dcmread(next(written["t1c"].iterdir())).SeriesInstanceUID)
    assert (run["outcome"], run["series_instance_uid"]) == ("done", first)
    check_segmentation(Path(run["objects"][0]["path"]), written["t1c"])


def test_a_route_brings_the_four_series_of_a_study_to_one_result(model: Path, tmp_path: Path) -> None:
    hospital = build_hospital(
        tmp_path / "hospital", pipeline="brats", match={"Modality": "MR"}, results=["SEG", "SR", "SC"], quiet_s=1
    )
    config = hospital.node.config
    config.write_text(config.read_text().replace(str(Path(__file__).parents[1] / "pipelines"), str(model.parent)))
    try:
        _goes_through(hospital, tmp_path)
    finally:
        hospital.node.kill()
        hospital.pacs.kill()


def _goes_through(hospital: Hospital, tmp_path: Path) -> None:
    hospital.pacs.start()
    hospital.node.start()
    written = write_brain(tmp_path / "study")
    study = study_uid_of(next(written["t1c"].iterdir()))
    send(hospital, tmp_path / "study")
    explained = wait_for_end(hospital, study)
    jobs = [(one["series_instance_uid"], job["state"]) for one in explained["series"] for job in one["jobs"]]
    first = str(pydicom.dcmread(next(written["t1c"].iterdir())).SeriesInstanceUID)
    assert jobs == [(first, "done")], explained
    assert "flair" in {route["why"].rpartition(" ")[2] for one in explained["series"] for route in one["routes"]}
    found = [one for one in hospital.pacs.instances() if one.sop_class_uid == "1.2.840.10008.5.1.4.1.1.66.4"]
    assert len(found) == 1
    path = tmp_path / "seg.dcm"
    path.write_bytes(hospital.pacs.download(found[0]))
    check_segmentation(path, written["t1c"])
