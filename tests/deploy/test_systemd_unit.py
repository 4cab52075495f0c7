"""The service unit: systemd itself reads it, and says nothing; its exposure stays where torch lets it be."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNIT, WORKER, WITHOUT_WORKER = (
    FOLDER / name for name in ("dicomnode.service", "dicomnode-worker.service", "without-worker.conf")
)
# Tenths of 10: measured 1.3; what torch needs (no MemoryDenyWriteExecute, @resources, all of /proc) costs 0.2.
THRESHOLD = "15"


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        raise FileNotFoundError("systemd-analyze is missing — apt-get install --no-install-recommends systemd")
    command = [tool, *map(str, words)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def in_place(folder: Path, text: str, name: str = UNIT.name) -> Path:
    """The unit with a program that exists here: verify wants to see it."""
    program = "/opt/dicomnode/.venv/bin/dicomnode"
    assert program in text
    path = folder / name
    path.write_text(text.replace(program, str(Path(sys.executable).with_name("dicomnode"))))
    return path


def test_verify_says_nothing(tmp_path: Path) -> None:
    done = analyze("verify", in_place(tmp_path, UNIT.read_text()))
    # It exits 0 on unknown keys: only silence means that the unit is right.
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_verify_says_nothing_of_the_worker_s_own_unit(tmp_path: Path) -> None:
    in_place(tmp_path, UNIT.read_text())
    done = analyze("verify", in_place(tmp_path, WORKER.read_text(), WORKER.name))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_worker_s_own_unit_has_no_network_and_less_exposure() -> None:
    done = analyze("security", "--offline=true", "--threshold=8", WORKER)
    assert done.returncode == 0, done.stdout + done.stderr
    settings = WORKER.read_text().splitlines()
    assert {"PrivateNetwork=yes", "RestrictAddressFamilies=AF_UNIX"} <= set(settings)


def test_without_the_worker_the_rest_closes_what_torch_keeps_open(tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("dicomnode"))
    unit = in_place(tmp_path, UNIT.read_text())
    (tmp_path / "dicomnode.service.d").mkdir()
    text = WITHOUT_WORKER.read_text().replace("/opt/dicomnode/.venv/bin/dicomnode", program)
    (tmp_path / "dicomnode.service.d" / "without-worker.conf").write_text(text)
    done = analyze("verify", unit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {"MemoryDenyWriteExecute=yes", "ProcSubset=pid"} <= set(text.splitlines())


@pytest.mark.parametrize("unit", [UNIT, WORKER])
def test_the_service_gives_limits_that_the_worker_can_keep(unit: Path) -> None:
    settings = dict(line.split("=", 1) for line in unit.read_text().splitlines() if line.startswith(("MemoryMax", "TasksMax")))
    assert settings.keys() == {"MemoryMax", "TasksMax"}
    assert "SystemCallFilter=seccomp" in unit.read_text().splitlines()  # it refuses itself the network by a filter of its own


def test_verify_would_have_said_something(tmp_path: Path) -> None:
    done = analyze("verify", in_place(tmp_path, UNIT.read_text().replace("WatchdogSec", "WatchdogSecond")))
    assert "WatchdogSecond" in done.stdout + done.stderr


def test_the_exposure_stays_below_the_threshold() -> None:
    done = analyze("security", "--offline=true", f"--threshold={THRESHOLD}", UNIT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("unit", [UNIT, WORKER])
@pytest.mark.parametrize("forbidden", ["MemoryDenyWriteExecute=yes", "ProcSubset=pid", "~@resources"])
def test_what_breaks_or_slows_torch_is_not_set(unit: Path, forbidden: str) -> None:
    settings = [line for line in unit.read_text().splitlines() if not line.startswith("#")]
    assert not any(forbidden in line for line in settings)


@pytest.mark.parametrize("unit", [UNIT, WORKER])
def test_the_memory_settings_are_those_of_the_supervisor(unit: Path) -> None:
    from dicomnode.roles.supervisor import MALLOC

    (line,) = [line for line in unit.read_text().splitlines() if line.startswith("Environment=MALLOC")]
    assert dict(word.split("=") for word in line.removeprefix("Environment=").split()) == MALLOC
