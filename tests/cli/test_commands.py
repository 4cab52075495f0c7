"""Commands on files, peers, pipelines and rows, with real bytes."""

import json
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from dicomnode import storage
from dicomnode.registry import Registry
from tests.cli.conftest import PIPELINES, type_command
from tests.peers.dcmtk import StoreScp
from tests.peers.waiting import free_port


def test_volume_says_what_imaging_makes_of_files(command: type_command, small_study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(small_study, folder)
    (folder / "notes.txt").write_text("no DICOM")
    answer = command("volume", folder, "--json")
    assert answer.code == 0
    (series,) = answer.document["series"]
    assert series["outcome"] == "volume"
    assert series["shape"] == [24, 128, 128]
    assert series["spacing_mm"] == pytest.approx([9.0, 3.0, 3.0])
    assert len(series["affine"]) == 4
    (ignored,) = answer.document["ignored"]
    assert ignored["path"].endswith("notes.txt")
    assert ignored["why"]


def test_volume_of_a_series_with_a_gap_is_refused_and_1(command: type_command, small_study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gap"
    shutil.copytree(small_study, folder)
    sorted(folder.iterdir())[11].unlink()
    answer = command("volume", folder, "--json")
    assert answer.code == 1
    (series,) = answer.document["series"]
    assert (series["outcome"], series["code"]) == ("refused", "gap")
    assert series["reason"]
    assert series["remedy"]


def test_infer_writes_objects_and_says_the_same_twice(command: type_command, small_study: Path, tmp_path: Path) -> None:
    documents = []
    for name in ("one", "two"):
        answer = command("infer", small_study, "--pipeline", PIPELINES / "tiny", "--out", tmp_path / name, "--json")
        assert answer.code == 0, answer.err
        documents.append(answer.document)
    (run,) = documents[0]["runs"]
    assert documents[0]["schema"] == "dicomnode.infer/1"
    assert (run["outcome"], run["code"], run["reason"]) == ("done", None, None)
    assert {"Left lung", "Right lung"} <= {one["label"] for one in run["findings"]["segments"]}
    assert {"decode", "preprocess", "forward", "postprocess", "results"} <= run["timings_s"].keys()
    assert run["peak_rss_mb"] > 50
    assert {one["kind"] for one in run["objects"]} == {"SEG", "SR", "SC"}
    sources = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in small_study.iterdir()}
    for one, other in zip(run["objects"], documents[1]["runs"][0]["objects"], strict=True):
        assert one["path"].endswith(".dcm")
        assert one["sop_instance_uid"] == other["sop_instance_uid"]
        assert Path(one["path"]).read_bytes() == Path(other["path"]).read_bytes()
    seg = pydicom.dcmread(next(one["path"] for one in run["objects"] if one["kind"] == "SEG"))
    for frame in seg.PerFrameFunctionalGroupsSequence:
        named = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert str(named) in sources


def test_infer_of_a_refused_series_is_1_and_says_why(command: type_command, small_study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    for path in sorted(small_study.iterdir())[:3]:
        shutil.copy(path, folder)
    answer = command("infer", folder, "--pipeline", PIPELINES / "tiny", "--out", tmp_path / "out", "--json")
    assert answer.code == 1
    (run,) = answer.document["runs"]
    assert run["outcome"] == "refused"
    assert run["code"]
    assert run["reason"]


def test_infer_with_an_unknown_pipeline_names_the_nearest_one(command: type_command, site: Path, small_study: Path) -> None:
    answer = command("infer", small_study, "--pipeline", "tinny", "--out", "out", "--config", site)
    assert answer.code == 2
    assert "'tiny'" in answer.error[1]


def test_pipelines_are_listed_checked_and_added(command: type_command, site: Path, tmp_path: Path) -> None:
    listed = command("pipelines", "list", "--json", "--config", site).document["pipelines"]
    (tiny,) = [one for one in listed if one["name"] == "tiny"]
    assert {"name", "version", "task", "digest", "trusted", "metrics"} <= tiny.keys()
    assert command("pipelines", "check", PIPELINES / "tiny", "--json").document["ok"] is True
    empty = tmp_path / "empty"
    empty.mkdir()
    wrong = command("pipelines", "check", empty, "--json")
    assert wrong.code == 1
    assert wrong.document["ok"] is False
    assert wrong.document["findings"][0]["what"]

    archive = tmp_path / "tiny.zip"
    with zipfile.ZipFile(archive, "w") as one:
        for path in (PIPELINES / "tiny").rglob("*"):
            one.write(path, Path("bundle") / path.relative_to(PIPELINES / "tiny"))
    added = command("pipelines", "add", archive, "--json", "--config", site)
    assert added.code == 0, added.err
    assert Path(added.document["folder"]) == site.parent / "data" / "pipelines" / "tiny"
    assert added.document["digest"] == tiny["digest"]
    again = command("pipelines", "add", PIPELINES / "tiny", "--config", site)
    assert again.code == 2
    assert command("pipelines", "add", PIPELINES / "tiny", "--replace", "--config", site).code == 0
    assert not list((site.parent / "data" / "pipelines").glob(".adding-*"))


def test_a_zip_that_leads_out_of_itself_is_refused(command: type_command, site: Path, tmp_path: Path) -> None:
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as one:
        one.writestr("../../evil.toml", "x")
    answer = command("pipelines", "add", archive, "--config", site)
    assert answer.code == 2
    assert "leads out of it" in answer.error[0]


def with_peer(site: Path, port: int) -> None:
    site.write_text(
        site.read_text() + f'\n[[peers]]\nname = "pacs"\nae_title = "STORESCP"\nhost = "127.0.0.1"\nport = {port}\n'
    )


def test_echo_and_send_to_a_peer(
    command: type_command, site: Path, small_study: Path, store_scp: Callable[..., StoreScp], tmp_path: Path
) -> None:
    scp = store_scp("archive")
    with_peer(site, scp.port)
    echo = command("echo", "pacs", "--json", "--config", site)
    assert (echo.code, echo.document["ok"], echo.document["status"]) == (0, True, 0)
    folder = tmp_path / "mixed"
    shutil.copytree(small_study, folder)
    (folder / "notes.txt").write_text("no DICOM")
    sent = command("send", "pacs", folder, "--json", "--config", site)
    assert sent.code == 1
    assert sent.document["sent"] == 24
    assert [Path(one["path"]).name for one in sent.document["failed"]] == ["notes.txt"]
    assert len(list(scp.received.iterdir())) == 24
    unknown = command("echo", "pasc", "--config", site)
    assert unknown.code == 2
    assert "'pacs'" in unknown.error[1]


def test_a_peer_out_of_reach_is_3(command: type_command, site: Path, small_study: Path) -> None:
    with_peer(site, free_port())
    for words in (("echo", "pacs"), ("send", "pacs", small_study)):
        answer = command(*words, "--config", site)
        assert answer.code == 3
        assert "refused the connection" in answer.error[0]
    document = command("echo", "pacs", "--json", "--config", site).document
    assert (document["ok"], document["status"]) == (False, None)


def test_fsck_finds_orphans_and_puts_them_aside(command: type_command, site: Path, small_study: Path) -> None:
    assert command("fsck", "--json", "--config", site).document["ok"] is True
    data = site.parent / "data"
    path = next(small_study.iterdir())
    whole = path.read_bytes()
    offset = storage.data_set_offset(path)
    store = storage.Store(data, reserve_bytes=0)
    written = store.write_instance(whole[:offset], [whole[offset:]])
    if written.in_flight is not None:
        written.in_flight.end()
    found = command("fsck", "--json", "--config", site)
    assert found.code == 1
    assert found.document["orphans"] == [str(written.path)]
    assert found.document["missing"] == []
    mended = command("fsck", "--mend", "--json", "--config", site)
    assert mended.code == 0
    assert len(list((data / "quarantine").rglob("*.dcm"))) == 1
    assert command("fsck", "--json", "--config", site).document["orphans"] == []


def test_the_database_is_upgraded_and_copied(command: type_command, site: Path, tmp_path: Path) -> None:
    upgraded = command("db", "upgrade", "--json", "--config", site)
    assert upgraded.code == 0
    copy = tmp_path / "copy.db"
    backup = command("db", "backup", copy, "--json", "--config", site)
    assert backup.document["revision"] == upgraded.document["revision"]
    registry = Registry(f"sqlite:///{copy}")
    assert registry.revision() == upgraded.document["revision"]
    registry.close()
    assert command("db", "backup", copy, "--config", site).code == 2


def test_an_older_database_is_2_and_names_the_upgrade(command: type_command, site: Path) -> None:
    with sqlite3.connect(site.parent / "data" / "dicomnode.db") as rows:
        rows.execute("UPDATE alembic_version SET version_num = 'f00'")
    answer = command("check", "--json", "--config", site)
    (database,) = [one for one in answer.document["checks"] if one["name"] == "database"]
    assert database["ok"] is False
    assert "f00" in json.dumps(database)


def test_a_broken_bundle_or_zip_is_one_line_that_names_what_was_given(
    command: type_command, site: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(PIPELINES / "tiny", broken)
    (broken / "models" / "model.safetensors").unlink()
    answer = command("pipelines", "add", broken, "--config", site)
    assert answer.code == 1
    assert str(broken) in answer.error[0]
    checked = command("pipelines", "check", broken, "--json", "--config", site)
    assert checked.code == 1
    assert checked.document["ok"] is False
    assert "missing" in checked.error[0]
    packed = Path(shutil.make_archive(str(tmp_path / "tiny"), "zip", PIPELINES / "tiny"))
    damaged = bytearray(packed.read_bytes())
    damaged[300:340] = bytes(40)
    packed.write_bytes(damaged)
    answer = command("pipelines", "add", packed, "--config", site)
    assert answer.code == 2
    assert str(packed) in answer.error[0]


def test_every_answer_that_is_no_ends_with_an_error_line(command: type_command, site: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    peer = '\n[[peers]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 9\n'
    site.write_text(site.read_text() + peer)
    orphan = site.parent / "data" / "instances" / "orphan.dcm"
    orphan.write_bytes(b"left behind")
    for words in (
        ("volume", empty),
        ("infer", empty, "--pipeline", "tiny", "--out", tmp_path / "out"),
        ("send", "pacs", empty),
        ("fsck",),
    ):
        answer = command(*words, "--json", "--config", site)
        assert answer.code == 1, words
        assert answer.error
        assert answer.document["schema"] == f"dicomnode.{words[0]}/1"
