"""What scripts lean on: words after the command, exit codes, the form of errors, one JSON document."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from dicomnode.cli.main import app
from tests.cli.conftest import type_command
from tests.peers.node import EXECUTABLE
from tests.peers.waiting import free_port


def all_commands() -> list[tuple[str, ...]]:
    root = typer.main.get_command(app)
    found = []
    for name, one in root.commands.items():  # type: ignore[attr-defined]
        found += [(name, sub) for sub in one.commands] if hasattr(one, "commands") else [(name,)]
    return found


@pytest.mark.parametrize("words", all_commands(), ids=" ".join)
def test_every_command_takes_json_config_and_debug(words: tuple[str, ...]) -> None:
    one = typer.main.get_command(app)
    for word in words:
        one = one.commands[word]  # type: ignore[attr-defined]
    options = {option for parameter in one.params for option in parameter.opts}
    assert {"--json", "--config", "--debug"} <= options
    assert one.help


def test_the_commands_of_the_contract_exist() -> None:
    wanted = {
        "init",
        "check",
        "run",
        "status",
        "studies",
        "explain",
        "volume",
        "infer",
        "echo",
        "send",
        "fsck",
        "demo",
        "version",
    }
    wanted |= {"retry", "cancel", "reprocess", "db upgrade", "db backup"}
    wanted |= {f"pipelines {one}" for one in ("list", "check", "add", "train", "evaluate")}
    assert wanted <= {" ".join(words) for words in all_commands()}


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("stats",),
        ("explain",),
        ("status", "--nope"),
        ("pipelines",),
        ("pipelines", "lst"),
        ("infer", "x", "--speed", "slow"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2_and_one_line(command: type_command, words: tuple[str, ...]) -> None:
    answer = command(*words)
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.count("\n") == 1
    assert "--help" in answer.error[1]


def test_an_error_with_json_is_a_document_too(command: type_command) -> None:
    answer = command("status", "--json", "--config", "nowhere.toml")
    assert answer.code == 2
    assert answer.document["schema"] == "dicomnode.error/1"
    assert answer.document["exit_code"] == 2
    assert answer.error[0] == answer.document["error"]


def test_without_settings_commands_say_how_to_get_them(command: type_command) -> None:
    answer = command("status")
    assert answer.code == 2
    assert "dicomnode init" in answer.error[1]


def test_init_writes_what_check_and_status_take(command: type_command, site: Path) -> None:
    again = command("init", site.parent)
    assert again.code == 2
    assert "exists already" in again.error[0]
    status = command("status", "--json", "--config", site)
    assert status.code == 0
    document = status.document
    assert document["schema"] == "dicomnode.status/1"
    assert document["ready"] is False
    assert document["roles"] == []
    assert {"studies", "series", "instances", "jobs", "deliveries"} <= document["counts"].keys()
    assert document["disk"]["free_bytes"] > 0
    assert document["oldest_queued_s"] is None
    assert document["version"]
    assert document["ae_title"] == "DICOMNODE"


def test_a_database_that_is_not_there_is_3(command: type_command, site: Path) -> None:
    (site.parent / "data" / "dicomnode.db").unlink()
    answer = command("studies", "--config", site)
    assert answer.code == 3
    assert "dicomnode run" in answer.error[1]


def test_questions_about_nothing_are_answered(command: type_command, site: Path) -> None:
    assert command("studies", "--json", "--config", site).document == {"schema": "dicomnode.studies/1", "studies": []}
    unknown = command("explain", "S1", "--config", site)
    assert unknown.code == 1
    assert "S1" in unknown.error[0]
    for words in (("retry", "J1"), ("cancel", "D1"), ("reprocess", "S9")):
        assert command(*words, "--config", site).code == 1
    assert command("retry", "nonsense", "--config", site).code == 2


def test_status_loads_nothing_heavy(site: Path) -> None:
    program = (
        "import sys; from dicomnode.cli.main import run; code = run(sys.argv[1:]);"
        "heavy = {'torch', 'monai', 'highdicom', 'pynetdicom', 'pydicom', 'scipy', 'alembic'} & set(sys.modules);"
        "sys.exit(f'loaded: {heavy}' if heavy else code)"
    )
    command = [sys.executable, "-c", program, "status", "--config", str(site)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_internal_error_is_4_without_a_traceback_unless_asked_for(
    command: type_command, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret text")

    monkeypatch.setattr("dicomnode.cli.node.existing_registry", broken)
    quiet = command("status", "--config", site)
    assert quiet.code == 4
    assert "secret text" not in quiet.err
    assert "RuntimeError" in quiet.error[0]
    loud = command("status", "--debug", "--config", site)
    assert "Traceback" in loud.err


def test_a_reader_that_leaves_early_is_no_error(site: Path) -> None:
    words = f"{EXECUTABLE} status --json --config {site} | true"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_check_names_everything_that_a_start_needs(command: type_command, site: Path) -> None:
    site.write_text(site.read_text().replace("port = 11112", f"port = {free_port()}"))
    answer = command("check", "--json", "--config", site)
    assert answer.code == 0, answer.document
    names = {one["name"] for one in answer.document["checks"]}
    assert {"settings", "folders", "disk", "database", "ports", "peers", "pipelines", "device", "clock", "package"} <= names
    for one in answer.document["checks"]:
        assert one.keys() == {"name", "ok", "detail", "remedy"}


def test_check_with_wrong_settings_is_2_and_names_every_one(command: type_command, site: Path) -> None:
    site.write_text(site.read_text().replace("port = 11112", "prot = 11112") + "[nod]\n")
    answer = command("check", "--json", "--config", site)
    assert answer.code == 2
    assert answer.document["ok"] is False
    assert len(answer.document["checks"]) == 2


def test_check_with_a_dead_destination_or_a_taken_port_is_1(command: type_command, site: Path) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        text = site.read_text().replace("port = 11112", f"port = {other.getsockname()[1]}")
        site.write_text(
            text + f'[[peers]]\nname = "pacs"\nae_title = "P"\nhost = "127.0.0.1"\nport = {free_port()}\n'
            '[[destinations]]\nname = "pacs"\npeer = "pacs"\n'
            '[[routes]]\nname = "r"\nmatch = { Modality = "CT" }\npipeline = "tinny"\nsend_to = ["pacs"]\n'
        )
        answer = command("check", "--json", "--config", site)
    assert answer.code == 1
    wrong = {one["name"] for one in answer.document["checks"] if not one["ok"]}
    assert wrong == {"ports", "peers", "pipelines"}
    for one in answer.document["checks"]:
        assert one["ok"] or one["remedy"]


def test_an_init_that_failed_can_be_tried_again(command: type_command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert command("init", "node", "--data-dir", tmp_path / "file" / "data").code == 2
    again = command("init", "node")
    assert again.code == 0, again.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to another user")
def test_what_root_makes_in_the_service_users_folder_is_the_service_users(command: type_command, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, 4711, 4712)
    assert command("init", "node", "--data-dir", data).code == 0
    owners = {(one.stat().st_uid, one.stat().st_gid) for one in data.rglob("*")}
    assert owners == {(4711, 4712)}


@pytest.mark.parametrize("words", [("status",), ("explain", "S1"), ("fsck",), ("db", "upgrade"), ("run",)], ids=" ".join)
def test_a_damaged_database_is_3_and_says_what_to_do(command: type_command, site: Path, words: tuple[str, ...]) -> None:
    (site.parent / "data" / "dicomnode.db").write_bytes(bytes(range(256)) * 400)
    answer = command(*words, "--config", site)
    assert answer.code == 3
    assert "damaged" in answer.error[0]
    assert "backup" in answer.error[1]
