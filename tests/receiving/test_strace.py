"""The order of system calls: nothing says 0x0000 before bytes, folder entry and row are on disk.

DESIGN section 5, seen from outside. Each sync is stretched to 30 ms, so what runs side by side overlaps and what runs one after
the other does not: the syncs in series are counted, and they are what an image costs on a slow disk (T = T0 + k·S).
"""

import os
import re
import subprocess
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.processes import tool
from tests.peers.waiting import wait_until
from tests.receiving.load import Bookkeeping, Images, send_one
from tests.receiving.raw import ASSOCIATE_AC, RELEASE_RP, RawSender
from tests.receiving.receive_process import ReceiveProcess

_SYNC_US = 30_000
_WANTED = "fdatasync,fsync,sync_file_range,rename,renameat,renameat2,sendto,sendmsg,openat"


@dataclass(frozen=True)
class Call:
    """One system call: the lines of the trace at which it began and ended."""

    name: str
    arguments: str
    began: int
    ended: int

    @property
    def path(self) -> str:
        """Of the file descriptor that stands first."""
        found = re.match(r"\d+<([^>]*)>", self.arguments)
        return found.group(1) if found else ""


def calls_of(trace: Path) -> list[Call]:
    found, unfinished = [], {}
    for number, line in enumerate(trace.read_text(errors="replace").splitlines()):
        thread, _, rest = line.partition(" ")
        rest, began = rest.strip(), number
        if rest.endswith("<unfinished ...>"):
            unfinished[thread] = (rest.removesuffix("<unfinished ...>"), number)
            continue
        if rest.startswith("<... "):
            start, began = unfinished.pop(thread, ("", number))
            rest = start + rest.partition("resumed>")[2]
        name, _, arguments = rest.partition("(")
        found.append(Call(name, arguments, began, number))
    return found


def in_series(calls: Iterable[Call]) -> int:
    """The most calls of which each began after the one before had ended."""
    count, free_at = 0, -1
    for call in sorted(calls, key=lambda one: one.ended):
        if call.began > free_at:
            count, free_at = count + 1, call.ended
    return count


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    attached = subprocess.run([tool("strace", "strace"), "-o", os.devnull, "true"], capture_output=True, check=False)
    if attached.returncode != 0:
        pytest.skip("strace may not attach here: the order of system calls was not looked at")
    return tmp_path / "trace"


def store_under_strace(
    tmp_path: Path, trace: Path, order: str, images: int, associations: int = 1
) -> tuple[list[str], list[Call]]:
    """Paths of the stored files in the order of arrival, and the calls from the start of the process to the release."""
    delayed = f"inject=fdatasync,fsync:delay_enter={_SYNC_US}"
    prefix = [tool("strace", "strace"), "-f", "-y", "-s", "256", "-o", trace, "-e", f"trace={_WANTED}", "-e", delayed]
    node = ReceiveProcess(tmp_path / "node", settings={"storage": {"order": order}}, prefix=prefix)
    book = Bookkeeping()
    with node:
        pictures = Images()
        for _ in range(associations):
            with RawSender(node.port) as sender:
                assert sender.associate() == ASSOCIATE_AC
                assert [send_one(sender, pictures, book) for _ in range(images)] == [0] * images
                assert sender.release() == RELEASE_RP
        images *= associations
        wait_until(lambda: len(responses(calls_of(trace))) >= images, what="the trace to be written")
    with closing(node.registry()) as registry:
        known = [registry.instance(uid) for uid in book.acknowledged]
    return [one.path.as_posix() for one in known if one is not None], calls_of(trace)


def responses(calls: Iterable[Call]) -> list[Call]:
    """What was sent as P-DATA-TF (PDU type 4, PS3.8 9.3.5)."""
    return [call for call in calls if call.name in {"sendto", "sendmsg"} and '"\\4\\0' in call.arguments]


def syncs(calls: Iterable[Call], *ends: str) -> list[Call]:
    return [call for call in calls if call.name in {"fdatasync", "fsync"} and call.path.endswith(ends)]


@pytest.mark.parametrize(("order", "most_in_series"), [("serial", 3), ("parallel", 1)])
def test_success_is_sent_after_bytes_folder_entry_and_row_are_on_disk(
    tmp_path: Path, trace: Path, order: str, most_in_series: int
) -> None:
    paths, calls = store_under_strace(tmp_path, trace, order, images=4)
    answers = responses(calls)
    assert len(paths) == len(answers) == 4
    since = 0
    for path, answer in zip(paths, answers, strict=True):
        file_syncs = [call for call in syncs(calls, *names_of(calls, path)) if call.ended < answer.began]
        folder_syncs = [call for call in syncs(calls, Path(path).parent.as_posix()) if call.ended < answer.began]
        row_syncs = [call for call in syncs(calls, "dicomnode.db-wal") if since < call.began and call.ended < answer.began]
        assert file_syncs, "0x0000 before the file's bytes were on disk"
        assert folder_syncs, "0x0000 before the folder's entry was on disk"
        assert row_syncs, "0x0000 before the row was on disk"
        entry_made = max(call.ended for call in calls if call.name != "sendto" and creates(call, path))
        assert any(entry_made < call.began for call in folder_syncs), "the folder was synced before it had the entry"
        since = answer.ended
    # Not the first: with it studies, folders and pools are made.
    before, last = answers[-2].ended, answers[-1].began
    window = [call for call in calls if before < call.began and call.ended < last]
    own = syncs(window, *names_of(calls, paths[-1]), Path(paths[-1]).parent.as_posix(), "dicomnode.db-wal")
    assert in_series(own) <= most_in_series, own


@pytest.mark.parametrize(("order", "most_in_series"), [("serial", 3), ("parallel", 1)])
def test_an_association_for_each_image_costs_no_sync_more(tmp_path: Path, trace: Path, order: str, most_in_series: int) -> None:
    _, calls = store_under_strace(tmp_path, trace, order, images=1, associations=3)
    accepted = [call for call in calls if call.name in {"sendto", "sendmsg"} and '"\\2\\0' in call.arguments]
    answers = responses(calls)
    assert len(accepted) == len(answers) == 3
    counts = []
    for opened, answer in list(zip(accepted, answers, strict=True))[1:]:
        window = [call for call in calls if opened.ended < call.began and call.ended < answer.began]
        counts.append(in_series(call for call in window if call.name in {"fsync", "fdatasync"}))
    # The least: the side thread may just then note the end of the association before.
    assert 1 <= min(counts) <= most_in_series


def names_of(calls: Iterable[Call], path: str) -> list[str]:
    """What the file was called in its life: its last two parts, and those of what was renamed to it."""
    short = "/".join(Path(path).parts[-2:])
    renamed = [call.arguments for call in calls if call.name.startswith("rename") and f'{short}"' in call.arguments]
    return [short, *("/".join(Path(old.split('"')[1]).parts[-2:]) for old in renamed)]


def creates(call: Call, path: str) -> bool:
    """Whether the call put this file's name into its folder."""
    return f'{"/".join(Path(path).parts[-2:])}"' in call.arguments and (
        call.name.startswith("rename") or (call.name == "openat" and "O_CREAT" in call.arguments)
    )
