"""The pages say what the code does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dicomnode.cli.settings_template import settings_template
from dicomnode.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_generated_parts_are_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text())
    broken = [target for target in targets if not target.startswith("http") and not (page.parent / target).exists()]
    assert not broken


def test_every_command_of_the_contract_answers_for_help() -> None:
    table = (ROOT / "docs" / "contract.md").read_text().split("## Commands")[1].split("## ")[0]
    words = {word for cell in re.findall(r"(?m)^\| (`.*?) \|", table) for word in re.findall(r"`([a-z]+)", cell)}
    assert {"init", "check", "run", "status", "explain", "infer", "volume", "fsck", "demo"} <= words
    dicomnode = Path(sys.executable).with_name("dicomnode")
    listed = subprocess.run([dicomnode, "--help"], capture_output=True, text=True, check=True, env={"COLUMNS": "200"}).stdout
    assert not [word for word in words if not re.search(rf"\b{word}\b", listed)]


def test_every_setting_stands_in_the_file_that_init_writes() -> None:
    text = settings_template(Path("/data"))
    missing = []
    for section, field in Settings.model_fields.items():
        inner = field.annotation if isinstance(field.annotation, type) else field.annotation.__args__[0]  # type: ignore[union-attr]
        unwritten = [key for key in inner.model_fields if not re.search(rf"(?m)^(# )?{key}\b", text)]
        missing += [f"{section}.{key}" for key in unwritten]
    assert not missing
