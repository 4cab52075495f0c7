"""What a radiologist sees: OHIF on Orthanc's DICOMweb shows the segmentation, the measurements and the captures."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.domain.profiles import SHIPPED, ScForm
from dicomnode.results.drawing import AMBER
from dicomnode.results.wording import percent
from tests.viewers.cases import magnetic_resonance_study, phantom_study, radiograph_study
from tests.viewers.ohif import Ohif

pytestmark = pytest.mark.timeout(1800)  # waits end sooner and say for what; this is for a machine with other work

type_viewer = Callable[[list[Path]], Ohif]


def test_ohif_shows_segmentation_measurements_and_captures_of_a_chest_ct(
    viewer: type_viewer, tmp_path: Path, artefacts: Path
) -> None:
    study = phantom_study(tmp_path)
    ohif = viewer(study.files)
    ohif.open_study(series=4)

    ohif.open_series("SEG -")
    ohif.agree()
    ohif.open_panel("panelSegmentation")
    for segment in (segment for one in study.findings.label_maps for segment in one.segments):
        ohif.wait_for_text(segment.label)
    ohif.wait_for_color(study.findings.label_maps[0].segments[0].color_rgb, pixels=100)
    ohif.show(artefacts / "ct-segmentation.png")

    ohif.open_series("1.0 SR")
    ohif.wait_for_label(study.findings.lesions[0].label)
    ohif.show(artefacts / "ct-report.png")
    assert f"{study.findings.lesions[0].volume_ml:.2f} mL" in ohif.labels()
    ohif.agree()  # OHIF takes the outlines over and puts its own numbers in the place of ours
    ohif.open_panel("trackedMeasurements")
    for lesion in study.findings.lesions:
        ohif.wait_for_text(f"{percent(lesion.probability)}: AI volume {lesion.volume_ml:.2f} ml")
    # What is said of the whole study is a note: as a region it was listed with an area and a maximum of "-Infinity HU".
    ohif.wait_for_text("Additional Findings (1)")
    ohif.wait_for_text("Suspicious nodule: present, probability 93% (threshold 50%)")
    assert f"Measurements ({len(study.findings.lesions)})" in ohif.text()
    assert "Infinity" not in ohif.text()
    ohif.show(artefacts / "ct-measurements.png")

    ohif.open_series("SC -")
    ohif.wait_for_color(AMBER, pixels=5000)
    ohif.show(artefacts / "ct-captures.png")


@pytest.mark.soak
def test_ohif_shows_a_ct_in_which_no_nodule_was_found(viewer: type_viewer, tmp_path: Path, artefacts: Path) -> None:
    study = phantom_study(tmp_path, nodules=0)
    ohif = viewer(study.files)
    ohif.open_study(series=4)
    ohif.open_series("SEG -")
    ohif.agree()
    ohif.wait_for_color(study.findings.label_maps[0].segments[0].color_rgb, pixels=100)
    ohif.open_series("1.0 SR")
    ohif.wait_for_label("Suspicious nodule: absent, probability 8%")
    assert 0 < ohif.place_of_label("Suspicious nodule: absent") < 0.5  # its words are to be read within the picture
    ohif.show(artefacts / "ct-negative-report.png")
    ohif.open_series("SC -")
    ohif.wait_for_color(AMBER, pixels=5000)


@pytest.mark.soak
def test_ohif_shows_multi_frame_captures(viewer: type_viewer, tmp_path: Path, artefacts: Path) -> None:
    profile = replace(SHIPPED["ohif"], name="multi", sc_form=ScForm.MULTI_FRAME)
    ohif = viewer(phantom_study(tmp_path, profiles=(profile,)).files)
    ohif.open_study(series=4)
    ohif.open_series("SC -")
    ohif.wait_for_color(AMBER, pixels=5000)
    ohif.show(artefacts / "ct-multi-frame-captures.png")


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")  # pydicom's, of the real files
@pytest.mark.parametrize("name", ["mr_prostate_adc_ax", "mr_abdomen_haste_cor"])
def test_ohif_shows_the_results_of_a_real_mr(
    viewer: type_viewer, test_data: Path, tmp_path: Path, artefacts: Path, name: str
) -> None:
    """Oblique axial and coronal: the segmentation lies over planes that are none of the patient's."""
    study = magnetic_resonance_study(sorted((test_data / name).glob("*.dcm")), tmp_path)
    ohif = viewer(study.files)
    ohif.open_study(series=4)

    ohif.open_series("SEG -")
    ohif.agree()
    ohif.open_panel("panelSegmentation")
    for segment in study.segments:
        ohif.wait_for_text(segment.label)
    ohif.open_segment(study.segments[-1].label)
    ohif.wait_for_color(study.segments[0].color_rgb, pixels=100)
    ohif.show(artefacts / f"{name}-segmentation.png")

    ohif.open_series("1.0 SR")
    ohif.wait_for_label("Lesion 1")
    ohif.show(artefacts / f"{name}-report.png")
    assert f"{study.findings.lesions[0].volume_ml:.2f} mL" in ohif.labels()
    ohif.agree()
    ohif.open_panel("trackedMeasurements")
    ohif.wait_for_text(f"AI volume {study.findings.lesions[0].volume_ml:.2f} ml")
    ohif.show(artefacts / f"{name}-measurements.png")

    ohif.open_series("SC -")
    ohif.wait_for_color(AMBER, pixels=5000)
    ohif.show(artefacts / f"{name}-captures.png")


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")  # pydicom's, of the real files
@pytest.mark.parametrize("name", ["cr_chest_mono1_440", "dx_chest_pa_nih_effusion"])
def test_ohif_shows_the_results_of_a_real_radiograph(
    viewer: type_viewer, test_data: Path, tmp_path: Path, artefacts: Path, name: str
) -> None:
    study = radiograph_study(test_data / "objects" / f"{name}.dcm", tmp_path)
    ohif = viewer(study.files)
    ohif.open_study(series=3)
    assert not [one for one in ohif.series() if "SEG" in one]  # OHIF goes black over one

    ohif.open_series("1.0 SR")
    ohif.agree()  # over a radiograph OHIF draws outlines only once they are taken over
    ohif.open_panel("trackedMeasurements")
    ohif.wait_for_text("Opacity: probability 86%")
    ohif.show(artefacts / f"{name}-measurements.png")

    ohif.open_series("SC -")
    ohif.wait_for_color(AMBER, pixels=5000)
    ohif.show(artefacts / f"{name}-captures.png")
