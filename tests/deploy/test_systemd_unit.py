"""The service unit: systemd itself reads it, and says nothing; its exposure stays where torch lets it be."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "dicomnode.service"
# Tenths of 10: measured 1.3; what torch needs (no MemoryDenyWriteExecute, @resources, all of /proc) costs 0.2.
THRESHOLD = "15"


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        raise FileNotFoundError("systemd-analyze is missing — apt-get install --no-install-recommends systemd")
    command = [tool, *map(str, words)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def in_place(folder: Path, text: str) -> Path:
    """The unit with a program that exists here: verify wants to see it."""
    program = "/opt/dicomnode/.venv/bin/dicomnode"
    assert program in text
    path = folder / UNIT.name
    path.write_text(text.replace(program, str(Path(sys.executable).with_name("dicomnode"))))
    return path


def test_verify_says_nothing(tmp_path: Path) -> None:
    done = analyze("verify", in_place(tmp_path, UNIT.read_text()))
    # It exits 0 on unknown keys: only silence means that the unit is right.
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_verify_would_have_said_something(tmp_path: Path) -> None:
    done = analyze("verify", in_place(tmp_path, UNIT.read_text().replace("WatchdogSec", "WatchdogSecond")))
    assert "WatchdogSecond" in done.stdout + done.stderr


def test_the_exposure_stays_below_the_threshold() -> None:
    done = analyze("security", "--offline=true", f"--threshold={THRESHOLD}", UNIT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("forbidden", ["MemoryDenyWriteExecute=yes", "ProcSubset=pid", "~@resources"])
def test_what_breaks_or_slows_torch_is_not_set(forbidden: str) -> None:
    settings = [line for line in UNIT.read_text().splitlines() if not line.startswith("#")]
    assert not any(forbidden in line for line in settings)


def test_the_memory_settings_are_those_of_the_supervisor() -> None:
    from dicomnode.roles.supervisor import MALLOC

    (line,) = [line for line in UNIT.read_text().splitlines() if line.startswith("Environment=MALLOC")]
    assert dict(word.split("=") for word in line.removeprefix("Environment=").split()) == MALLOC
