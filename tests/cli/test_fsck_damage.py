"""`fsck` on a node that received: whose images the disk lost, and what becomes of them."""

from pathlib import Path
from typing import Any

from tests.cli.conftest import type_command
from tests.receiving.reception import Reception
from tests.receiving.samples import ct, saved


def received(site: Path, folder: Path) -> tuple[Any, Path, Path]:
    """An image that the node at `site` received: its object, its file as sent, its file as kept."""
    image = ct()
    path = saved(image, folder)
    with Reception(site.parent / "data") as reception:
        assert reception.send(path) == [0]
        return image, path, reception.store.absolute(reception.known(image.SOPInstanceUID).path)


def test_a_damaged_image_is_named_by_its_study_and_held_until_an_operator_decides(
    command: type_command, site: Path, tmp_path: Path
) -> None:
    image, sent, kept = received(site, tmp_path)
    whole = bytearray(kept.read_bytes())
    whole[-1] ^= 1  # one bit of the pixels: a picture like any other
    kept.write_bytes(whole)
    found = command("fsck", "--json", "--config", site)
    assert (found.code, found.document["ok"], found.document["studies"]) == (1, False, ["S1"])
    assert found.document["corrupt"] == [kept.relative_to(site.parent / "data").as_posix()]
    assert found.document["held"] == []
    assert "S1" in command("fsck", "--config", site).error[1]
    mended = command("fsck", "--mend", "--json", "--config", site)
    assert (mended.code, mended.document["held"]) == (1, ["E1"])
    assert kept.exists()
    assert "missing or damaged" in command("explain", image.StudyInstanceUID, "--config", site).out
    # Sent again it is whole again; the operator lets it go on.
    with Reception(site.parent / "data") as reception:
        assert reception.send(sent) == [0]
    assert command("fsck", "--json", "--config", site).document["ok"] is True
    assert command("retry", "E1", "--json", "--config", site).document["changed"] == ["E1"]


def test_a_lost_file_keeps_its_row(command: type_command, site: Path, tmp_path: Path) -> None:
    _, _, kept = received(site, tmp_path)
    kept.unlink()
    for _ in range(2):
        mended = command("fsck", "--mend", "--json", "--config", site)
        assert (mended.code, len(mended.document["missing"]), mended.document["studies"]) == (1, 1, ["S1"])
    assert command("status", "--json", "--config", site).document["counts"]["instances"] == 1
