"""What an administrator sees of alarms: first in `status`, once in the log, nowhere when all is well."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from dicomnode.domain.clock import utc_now
from dicomnode.registry import Registry
from dicomnode.roles import wiring
from dicomnode.roles.alarms import AlarmWatch
from dicomnode.roles.state_files import RoleLocks, RoleStatus, write_state
from dicomnode.settings import load_settings
from tests.cli.conftest import type_command
from tests.receiving.certificates import Authority
from tests.registry.samples import add_series, queue_job


@pytest.fixture
def config(command: type_command, tmp_path: Path) -> Path:
    """A node that was set up, on a disk with room."""
    assert command("init", str(tmp_path / "node")).code == 0
    path = tmp_path / "node" / "dicomnode.toml"
    path.write_text(path.read_text().replace("# free_percent = 10 ", "free_percent = 0 "))
    return path


def a_failed_job(config: Path) -> None:
    registry = Registry(load_settings(config).database_url)
    add_series(registry, 3)
    queue_job(registry)
    for _ in range(3):
        ahead = utc_now() + timedelta(days=1)
        registry._clock = lambda ahead=ahead: ahead  # type: ignore[misc]
        assert registry.claim_job("w", 60) is not None
        registry._clock = utc_now
        registry.worker_died("w")
    registry.close()


def alarms(command: type_command, config: Path) -> list[dict[str, Any]]:
    answer = command("status", "--config", str(config), "--json")
    assert answer.code == 0
    found: list[dict[str, Any]] = answer.document["alarms"]
    return found


def test_status_begins_with_what_waits_and_what_to_do(command: type_command, config: Path) -> None:
    assert alarms(command, config) == []
    assert "alarm" not in command("status", "--config", str(config)).out
    a_failed_job(config)
    (one,) = alarms(command, config)
    assert set(one) == {"kind", "subject", "since", "count", "meaning", "detail", "remedy"}
    assert (one["kind"], one["subject"], one["count"]) == ("job_failed", "J1", 1)
    assert "dicomnode retry J1" in one["remedy"]
    shown = command("status", "--config", str(config))
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert lines[1] == "1 alarm:"
    assert "dicomnode retry J1" in " ".join(shown.out.split())


def test_a_full_disk_is_seen_from_the_disk_itself_and_goes_with_its_cause(command: type_command, config: Path) -> None:
    text = config.read_text()
    config.write_text(text.replace("# reserve_mb = 512", "reserve_mb = 100000000"))
    (one,) = alarms(command, config)
    assert (one["kind"], one["subject"]) == ("disk_full", "data_dir")
    assert "MB are free" in one["detail"]
    config.write_text(text)
    assert alarms(command, config) == []


def test_a_certificate_near_its_end_or_past_it_is_told(command: type_command, config: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    text = config.read_text()
    for pair, kind, why in (
        (authority.sign("soon", days=2), "certificate_ends", "2 days are left"),
        (authority.sign("past", days=-1), "certificate_unusable", "expired"),
    ):
        tls = f'tls = {{ certificate = "{pair.certificate}", key = "{pair.key}", ca = "{authority.certificate}" }}\n'
        config.write_text(text.replace("[dicom]\n", f"[dicom]\n{tls}", 1))
        (one,) = alarms(command, config)
        assert (one["kind"], one["subject"]) == (kind, "dicom.tls")
        assert why in one["detail"]


def test_a_role_that_ended_by_itself_is_named(command: type_command, config: Path) -> None:
    folder = wiring.run_folder(load_settings(config))
    started = "2026-11-21T08:00:00+00:00"
    with RoleLocks(folder, ["receive", "work"]):
        for name, state, restarts in (("receive", "ready", 0), ("work", "restarting", 4)):
            write_state(folder, RoleStatus(name=name, pid=1, state=state, started=started, restarts=restarts, supervisor_pid=1))
        (one,) = alarms(command, config)
    assert (one["kind"], one["subject"], one["count"], one["since"]) == ("role_down", "work", 4, started)
    assert alarms(command, config) == [], "a node that was stopped is not ready, and that is all"


def test_without_a_database_the_rest_is_told_and_the_exit_code_is_its_own(command: type_command, config: Path) -> None:
    settings = load_settings(config)
    database = wiring.sqlite_file(settings.database_url)
    assert database is not None
    folder = wiring.run_folder(settings)
    with RoleLocks(folder, ["receive"]):
        ready = RoleStatus(name="receive", pid=1, state="ready", started="", restarts=0, supervisor_pid=1)
        write_state(folder, ready)
        database.write_bytes(b"no database at all" * 100)
        shown = command("status", "--config", str(config))
        as_json = command("status", "--config", str(config), "--json")
    assert (shown.code, as_json.code) == (3, 3)
    assert "database_unreachable" in shown.out
    assert "receive" in shown.out
    assert as_json.document["exit_code"] == 3


def test_the_log_says_an_alarm_once_when_it_comes_and_once_when_it_goes(config: Path) -> None:
    a_failed_job(config)
    registry = Registry(load_settings(config).database_url)
    watch = AlarmWatch(load_settings(config), registry)
    with capture_logs() as logs:
        for _ in range(3):
            watch.look(utc_now())
        registry.retry("J1")
        for _ in range(2):
            watch.look(utc_now())
    registry.close()
    said = [(line["event"], line["kind"], line["how"], line["log_level"]) for line in logs]
    assert said == [("alarm", "job_failed", "J1", "error"), ("alarm is over", "job_failed", "J1", "info")]


def test_the_log_says_once_that_the_database_is_away_and_once_that_it_is_back(config: Path) -> None:
    settings = load_settings(config)
    database = wiring.sqlite_file(settings.database_url)
    assert database is not None
    registry = Registry(settings.database_url)
    watch = AlarmWatch(settings, registry)
    whole = database.read_bytes()
    with capture_logs() as logs:
        watch.look(utc_now())
        registry.close()
        for left in database.parent.glob(f"{database.name}-*"):
            left.unlink()
        database.write_bytes(b"no database at all" * 100)
        for _ in range(3):
            watch.look(utc_now())
        registry.close()
        database.write_bytes(whole)
        for _ in range(2):
            watch.look(utc_now())
    registry.close()
    said = [(line["event"], line["kind"], line["how"], line["log_level"]) for line in logs]
    assert said == [
        ("alarm", "database_unreachable", "database", "error"),
        ("alarm is over", "database_unreachable", "database", "info"),
    ]
