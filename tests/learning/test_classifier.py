"""A model author's own network learns from a table of cases, and what comes out is a pipeline that the node runs."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from dicomnode import imaging
from dicomnode.domain.errors import PipelineError, UsageError
from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Refusal
from dicomnode.engines import check_pipeline, load_pipeline
from dicomnode.learning import classifier, kinds
from dicomnode.learning.tables import read_table
from tests.engines.zoo import write_bundle
from tests.imaging.writing import COMPUTED_RADIOGRAPHY, Slices, image, save

SHAPES = ("Disc", "Ring", "Bar")
HEATMAP = '[heatmap]\nname = "what was looked at"\nchannel = 0\nmethod = "gradcam"\nlayer = "layer3"\n'
RNG = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def _always_alike() -> Iterator[None]:
    """The same images in any order of tests. One thread: those that wait for each other take long on a busy machine."""
    RNG.bit_generator.state = np.random.default_rng(11).bit_generator.state
    kept = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(kept)


def config(dims: int, classes: int, activation: str) -> dict[str, Any]:
    size = [32] * dims if dims == 2 else [24, 24, 12]
    return {
        "network_def": {
            "_target_": "ResNet",
            "block": "basic",
            "layers": [1, 1, 1, 1],
            "block_inplanes": [8, 8, 16, 16],
            "spatial_dims": dims,
            "n_input_channels": 1,
            "num_classes": classes,
            "conv1_t_stride": 1,
            "no_max_pool": True,
        },
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True},
                {"_target_": "Resized", "keys": "image", "spatial_size": size},
                {"_target_": "ScaleIntensityd", "keys": "image"},
            ],
        },
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Activationsd", "keys": "pred", activation: True}],
        },
    }


def bundle(folder: Path, labels: Iterable[str], *, dims: int, exclusive: bool, plan: Mapping[str, Any]) -> Path:
    labels = tuple(labels)
    classes = "".join(f'[[classes]]\nlabel = "{label}"\nchannel = {number}\n' for number, label in enumerate(labels))
    statement = f'[statement]\nname = "shape"\nexclusive = {str(exclusive).lower()}\n'
    activation = "softmax" if exclusive else "sigmoid"
    rules = ('kind = "image"\n' if dims == 2 else "") + classes + statement + HEATMAP
    modality = "CR" if dims == 2 else "CT"
    write_bundle(folder, config(dims, len(labels), activation), rules, task="classification", modality=modality)
    (folder / "models" / "model.safetensors").unlink()  # an author's new bundle has none yet
    (folder / "configs" / "train.json").write_text(json.dumps({"kind": "classifier", "cases": "../../cases.csv", **plan}))
    return folder


def picture(shape: str) -> NDArray[np.uint16]:
    y, x = np.mgrid[:48, :48]
    middle = RNG.uniform(15, 33, 2)
    away, size = np.hypot(y - middle[0], x - middle[1]), RNG.uniform(7, 10)
    shown = {"Disc": away < size, "Ring": np.abs(away - size) < 1.5, "Bar": (np.abs(y - middle[0]) < 2) & (away < 1.6 * size)}
    return np.clip(600 + 500 * shown[shape] + RNG.normal(0, 90, (48, 48)), 0, 4095).astype(np.uint16)


def radiographs(folder: Path, shapes: Iterable[str], each: int, who: str = "") -> None:
    """Two images of each patient."""
    lines = []
    for shape in shapes:
        for number in range(each):
            place = folder / f"{shape}{number}"
            place.mkdir(parents=True)
            data_set = image(COMPUTED_RADIOGRAPHY, picture(shape), f"2.25.{len(lines) + 1}")
            data_set.Modality = "CR"
            save(place, [data_set])
            lines.append({"path": place.name, "patient": f"{who}{shape} {number // 2}", "label": shape})
    write_table(folder, lines)


def write_table(folder: Path, lines: list[dict[str, str]]) -> None:
    with (folder / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ("path", "patient", "label"))
        writer.writeheader()
        writer.writerows(lines)


def run(folder: Path, case: Path) -> Findings:
    (series,) = imaging.scan([case]).series
    loaded = imaging.load(series)
    assert not isinstance(loaded, Refusal)
    found = load_pipeline(folder, device="cpu").run(loaded)
    assert isinstance(found, Findings)
    return found


@pytest.mark.timeout(600)
def test_a_network_learns_shapes_in_radiographs_and_another_one_starts_from_it(tmp_path: Path) -> None:
    radiographs(tmp_path, SHAPES[:2], each=24)
    first = bundle(tmp_path / "shapes", SHAPES[:2], dims=2, exclusive=True, plan={"epochs": 14, "left_out": 0.3})
    report = kinds.train(first, tmp_path / "out")
    told = report.metrics["left_out"]
    assert (report.examples, report.patients, told["cases"]) == (48, 24, 16)
    assert min(told[name] for name in ("accuracy", "recall", "precision", "f1", "auc")) >= 0.85
    assert not [one for one in check_pipeline(report.bundle) if one.level == "error"]
    assert kinds.evaluate(report.bundle)["left_out"] == told

    found = run(report.bundle, tmp_path / "Ring0")
    assert found.classifications[0].value in SHAPES
    assert found.heatmaps[0].values.max() > 200

    radiographs(tmp_path / "more", SHAPES, each=12, who="other ")
    plan = {"base": "../../../out/bundle", "frozen_epochs": 10, "epochs": 14, "left_out": 0.3, "batch_size": 6}
    second = bundle(tmp_path / "more" / "transferred", SHAPES, dims=2, exclusive=True, plan=plan)
    tuned = kinds.train(second, tmp_path / "tuned").metrics["left_out"]
    assert tuned["accuracy"] >= 0.7  # a third would be chance
    assert set(tuned["classes"]) == set(SHAPES)
    assert "doubt" not in tuned  # whom the base learned from is known, and nobody of them is in this table


def test_what_was_taken_over_is_held_still_to_the_last_statistic_while_the_head_learns() -> None:
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(64, 2))
    items = [{"image": torch.rand(1, 6, 6), "label": torch.tensor(number % 2)} for number in range(16)]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    taken = frozenset(name for name in before if not name.startswith("3."))
    changes = {"epochs": 2, "augmentation": {"_target_": "Compose", "transforms": []}}
    classifier._stage(network, items, {}, taken, changes, 0, lambda _share: None)
    after = network.state_dict()
    assert all(torch.equal(after[name], before[name]) == (name in taken) for name in before)
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.timeout(600)
def test_classes_that_do_not_exclude_each_other_are_learned_from_series_and_stand_in_one_statement_each(tmp_path: Path) -> None:
    lines = []
    for number in range(24):
        labels = [label for label, shown in (("Upper", number % 2), ("Lower", number // 2 % 2)) if shown]
        place = tmp_path / f"case{number}"
        place.mkdir()
        data_sets = Slices(number=8, rows=24, columns=24, seed=number).data_sets()
        for data_set in data_sets:
            data_set.SeriesInstanceUID, data_set.PatientID = f"2.25.{number + 1}", f"P{number}"
            pixels = 1000 + RNG.normal(0, 30, (24, 24))
            for label in labels:
                pixels[(slice(2, 9) if label == "Upper" else slice(14, 21)), 8:16] += 800
            data_set.PixelData = pixels.astype(np.int16).tobytes()
        save(place, data_sets)
        lines.append({"path": place.name, "patient": "", "label": ";".join(labels)})
    write_table(tmp_path, lines)
    plan = {"epochs": 16, "left_out": 0.3, "learning_rate": 0.005}
    folder = bundle(tmp_path / "places", ("Upper", "Lower"), dims=3, exclusive=False, plan=plan)
    report = kinds.train(folder, tmp_path / "out", seed=3)
    told = report.metrics["left_out"]
    assert told["auc"] >= 0.9
    assert told["accuracy"] >= 0.8
    # Whom the training with its seed left out is known from the bundle, also when it is moved; another table is refused.
    assert kinds.evaluate(report.bundle) == report.metrics
    plan = json.loads((report.bundle / "configs" / "train.json").read_text())
    assert plan["cases"] == "../../../cases.csv"
    found = run(report.bundle, tmp_path / "case3")
    write_table(tmp_path, lines[1:])
    with pytest.raises(UsageError, match="no longer known"):
        kinds.evaluate(report.bundle)
    assert {one.name: one.value for one in found.classifications}.keys() == {"Upper", "Lower"}
    assert found.heatmaps[0].values.shape == (8, 24, 24)
    assert json.loads((report.bundle / "configs" / "metadata.json").read_text())["eval_metrics"] == report.metrics


def test_neither_the_table_nor_its_images_go_into_the_new_bundle(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "shapes", SHAPES[:2], dims=2, exclusive=True, plan={"cases": "cases.csv"})
    radiographs(folder / "configs", SHAPES[:2], each=2)
    out = folder / "runs"
    kept_back = classifier._patients_and(out, folder, {"cases": "cases.csv"})
    names = [path.name for path in (folder / "configs").iterdir()]
    assert kept_back(folder / "configs", names) == {"cases.csv", "Disc0", "Disc1", "Ring0", "Ring1"}
    assert kept_back(folder, ["configs", "models", "runs"]) == {"runs"}


def test_a_patient_is_one_however_a_spreadsheet_wrote_him(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    text = "path,patient,label\na,P1,Disc\nb, P1 ,Disc\nc,,\n d\n"
    (tmp_path / "configs" / "cases.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    _, lines = read_table(tmp_path, {}, "")
    assert [line["patient"] for line in lines] == ["P1", "P1", "c", "d"]  # the last two have no images to ask
    assert lines[3]["label"] == ""


@pytest.mark.parametrize(
    ("plan", "lines", "wrong"),
    [
        ({"frozen_epochs": 1}, [], "frozen_epochs without weights"),
        ({}, [{"path": "Disc0", "patient": "", "label": "Square"}], "label 'Square'"),
        ({}, [{"path": "Disc0", "patient": "", "label": "Disc;Ring"}], "label 'Disc;Ring'"),
        ({"base_weights": "foreign.safetensors"}, [], "no tensor of foreign.safetensors fits"),
        ({"cases": "nowhere.csv"}, [], "does not exist"),
        ({}, [], "no case of Disc, Ring is left to train on"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused_by_name(
    plan: dict[str, Any], lines: list[dict[str, str]], wrong: str, tmp_path: Path
) -> None:
    radiographs(tmp_path, SHAPES[:2], each=2)
    if lines:
        write_table(tmp_path, lines)
    folder = bundle(tmp_path / "shapes", SHAPES[:2], dims=2, exclusive=True, plan=plan)
    save_file({"other": torch.zeros(3)}, folder / "configs" / "foreign.safetensors")
    with pytest.raises((PipelineError, UsageError)) as caught:
        kinds.train(folder, tmp_path / "out")
    assert wrong in str(caught.value)
    assert caught.value.remedy
    assert not (tmp_path / "out").exists()
