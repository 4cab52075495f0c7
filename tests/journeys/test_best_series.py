"""A study as scanners send it: localizer, soft and sharp kernel, a coronal reformat; one result set, from the best series."""

from pathlib import Path

import pydicom

from dicomnode.phantom import PatientText, small_thorax, write_coronal_reformat, write_localizer, write_study
from tests.journeys.hospital import Hospital, send, wait_for_end


def write_scanner_study(folder: Path) -> tuple[str, dict[str, str]]:
    """Four series of one phantom; the study's UID and the series' UIDs by name."""
    phantom = small_thorax(3)
    patient = PatientText()
    soft = write_study(
        phantom, folder / "soft", patient=patient, series_number=2, kernel="B31f", series_description="Chest soft"
    )
    study = str(pydicom.dcmread(soft[0]).StudyInstanceUID)
    sharp = write_study(
        phantom,
        folder / "sharp",
        patient=patient,
        series_number=3,
        kernel="B70f",
        series_description="Chest lung",
        study_uid=study,
    )
    scout = write_localizer(phantom, folder / "scout", patient=patient, study_uid=study, series_number=1)
    coronal = write_coronal_reformat(phantom, folder / "coronal", patient=patient, study_uid=study, series_number=50)
    first = {"soft": soft[0], "sharp": sharp[0], "scout": scout, "coronal": coronal[0]}
    return study, {name: str(pydicom.dcmread(path).SeriesInstanceUID) for name, path in first.items()}


def test_the_best_series_gives_the_one_result_set_and_the_losers_are_named(tiny_hospital: Hospital, tmp_path: Path) -> None:
    study, series = write_scanner_study(tmp_path / "study")
    tiny_hospital.pacs.start()
    tiny_hospital.node.start()
    send(tiny_hospital, tmp_path / "study")
    explanation = wait_for_end(tiny_hospital, study)

    by_uid = {one["series_instance_uid"]: one for one in explanation["series"]}
    jobs = [(uid, job["state"]) for uid, one in by_uid.items() for job in one["jobs"]]
    assert jobs == [(series["soft"], "done")]
    verdicts = {name: by_uid[uid]["routes"][0] for name, uid in series.items()}
    assert {name: verdict["chosen"] for name, verdict in verdicts.items()} == {
        "soft": True,
        "sharp": False,
        "scout": False,
        "coronal": False,
    }
    assert "kernel" in verdicts["sharp"]["why"].lower()
    assert "localizer" in verdicts["scout"]["why"].lower()
    assert "reformat" in verdicts["coronal"]["why"].lower() or "derived" in verdicts["coronal"]["why"].lower()
    kinds = {result["kind"] for result in by_uid[series["soft"]]["results"]}
    assert kinds == {"SEG", "SR", "SC"}
