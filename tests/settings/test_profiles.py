"""What a destination gets is data: a shipped profile with some things otherwise."""

from pathlib import Path

import pytest

from dicomnode.domain.profiles import SHIPPED, Fallback, OverLimit, ResultKind, ScForm, SegForm, SrClass, SrForm
from dicomnode.roles import wiring
from dicomnode.settings import Settings, read_settings

DESTINATION = """
[[destinations]]
name = "pacs"
kind = "folder"
path = "/srv/results"
profile = "ours"
"""
PROFILE = """
[[profiles]]
name = "ours"
like = "ohif"
kinds = ["SR", "SEG", "KOS"]
seg_form = "labelmap"
max_segments = 3
over_limit = "leave-out"
keep_empty_frames = true
library_images = 0
fallbacks = { SEG = "binary", SC = "single-frames" }
"""


def read(folder: Path, text: str) -> tuple[Settings | None, list[str]]:
    path = folder / "dicomnode.toml"
    path.write_text(text)
    settings, problems = read_settings(path)
    return settings, [str(one) for one in problems]


def test_a_profile_is_a_shipped_one_with_some_things_otherwise(tmp_path: Path) -> None:
    settings, problems = read(tmp_path, PROFILE + DESTINATION)
    assert settings is not None, problems
    (destination,) = wiring.destinations(settings)
    profile = destination.profile
    assert profile.name == "ours"
    assert profile.kinds == (ResultKind.SEG, ResultKind.SR, ResultKind.KOS)
    assert (profile.seg_form, profile.max_segments, profile.over_limit) == (SegForm.LABELMAP, 3, OverLimit.LEAVE_OUT)
    assert profile.keep_empty_frames
    assert (profile.sr_form, profile.library_images) == (SrForm.OHIF, 0)
    assert profile.fallbacks == (Fallback(ResultKind.SEG, SegForm.BINARY), Fallback(ResultKind.SC, ScForm.SINGLE_FRAMES))
    assert profile.max_frames == SHIPPED["ohif"].max_frames


def test_every_shipped_profile_can_be_named_and_the_viewers_is_the_default(tmp_path: Path) -> None:
    for name in SHIPPED:
        settings, problems = read(tmp_path, DESTINATION.replace("ours", name))
        assert settings is not None, problems
        assert wiring.destinations(settings)[0].profile == SHIPPED[name]
    settings, _ = read(tmp_path, DESTINATION.replace('profile = "ours"', ""))
    assert settings is not None
    assert wiring.destinations(settings)[0].profile == SHIPPED["ohif"]


def test_the_shipped_profiles_send_what_every_archive_and_viewer_takes() -> None:
    for profile in SHIPPED.values():
        assert profile.seg_form is SegForm.BINARY
        assert profile.sc_form is ScForm.SINGLE_FRAMES
        assert profile.sr_class is SrClass.COMPREHENSIVE_3D


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (DESTINATION, "destination 'pacs' names profile 'ours', which does not exist"),
        (PROFILE.replace('"ohif"', '"ohiv"'), "names profile 'ohiv', which does not exist — the nearest one is 'ohif'"),
        (PROFILE.replace('"ours"', '"archive"'), "profile 'archive' is a shipped one"),
        (PROFILE.replace("max_segments", "max_segment"), "unknown setting profiles[1].max_segment"),
        (PROFILE.replace('"labelmap"', '"label map"'), "profiles[1].seg_form is wrong"),
        (PROFILE.replace("SEG = ", "PDF = "), "unknown setting profiles[1].fallbacks.PDF"),
        (PROFILE + PROFILE, "two profiles are called 'ours'"),
    ],
)
def test_a_profile_that_is_none_stops_the_start_and_is_named(tmp_path: Path, text: str, words: str) -> None:
    _, problems = read(tmp_path, text)
    assert any(words in problem for problem in problems), problems


FHIR = """
[[destinations]]
name = "records"
kind = "fhir"
url = "https://fhir.example/r4"
profile = "{profile}"

[[routes]]
name = "chest-ct"
match = {{ Modality = "CT" }}
pipeline = "chest_ct"
send_to = ["records"]
results = ["FHIR", "SC"]
draw_identity = true
"""


def test_a_fhir_server_is_a_destination_and_a_route_may_ask_for_names_on_captures(tmp_path: Path) -> None:
    settings, problems = read(tmp_path, FHIR.format(profile="fhir"))
    assert settings is not None, problems
    (destination,) = wiring.destinations(settings)
    assert (destination.kind, destination.profile.kinds) == ("fhir", (ResultKind.FHIR,))
    assert not list(wiring.not_built(settings))
    assert wiring.routes(settings)[0].draw_identity


def test_a_fhir_server_gets_no_dicom_objects_and_a_pacs_no_bundles(tmp_path: Path) -> None:
    _, problems = read(tmp_path, FHIR.format(profile="ohif"))
    assert any("'fhir' has a profile of DICOM objects" in one for one in problems)
    profile = PROFILE.replace('"KOS"', '"FHIR"')
    stow = DESTINATION.replace(
        'kind = "folder"\npath = "/srv/results"', 'kind = "stow"\nurl = "https://pacs.example/dicom-web"'
    )
    _, problems = read(tmp_path, profile + stow)
    assert any("has a profile with FHIR bundles" in one for one in problems)
    settings, problems = read(tmp_path, profile + DESTINATION)
    assert settings is not None, problems
