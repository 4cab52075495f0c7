"""The subject `ingest`: how fast instances are received and made durable, against the receivers that people use today."""

import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicomnode.bench import disk, profile, receivers, sending, shim
from dicomnode.bench.ingest_cases import (
    CASES,
    DISK,
    GROWTH,
    IMAGE,
    MEDIAN_IMAGE,
    PEAK,
    RECEIVERS,
    SAMPLED,
    SECONDS,
    SYNC,
    SYNCS,
    UNSYNCED,
    Case,
    goals,
)
from dicomnode.bench.measuring import OURS, Rounds, ratios, rotated
from dicomnode.bench.objects import KINDS, SentObject, multi_frame, renewed
from dicomnode.bench.processes import MeasurementFailed, Running, free_port, small_mtu
from dicomnode.bench.receivers import Receiver
from dicomnode.bench.report import LeftOut, Report, machine
from dicomnode.bench.sending import Sent
from dicomnode.domain.errors import UsageError

_GIB = 1 << 30
_SYNCS_A_ROUND = 60
Say = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """What to measure. `folder` is on the disk in question; `cases` empty: all.

    images: at most so many a run. largest_bytes: pixels of the big object. most_s: no round is begun that would end later.
    """

    folder: Path
    rounds: int = 5
    full: bool = False
    cases: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    images: int | None = None
    largest_bytes: int = _GIB
    most_s: float | None = None

    def chosen(self) -> list[Case]:
        """The cases by name. Raises UsageError for unknown ones."""
        known = {case.name: case for case in CASES}
        if unknown := [name for name in self.cases if name not in known]:
            raise UsageError(f"there is no case {unknown[0]!r}", f"the cases are {', '.join(known)}")
        return [case for case in CASES if not self.cases or case.name in self.cases]

    def receivers_of(self, case: Case) -> list[Receiver]:
        """Who takes part in this case."""
        return [one for one in case.receivers(full=self.full) if not self.subjects or one.name in self.subjects]

    def images_of(self, case: Case, receiver: Receiver) -> int:
        """How many images one run sends: at least one an association."""
        wanted = case.fewer.get(receiver.name, case.images)
        return max(case.associations, min(wanted, self.images or wanted))


def ingest(plan: IngestPlan, say: Say) -> Report:
    """Measures the plan. Raises MeasurementFailed where we ourselves fail, UsageError for a folder that will not do."""
    cases = plan.chosen()
    plan.folder.mkdir(parents=True, exist_ok=True)
    disk.check_disk(plan.folder, 4 * plan.largest_bytes)
    began = time.time()
    with tempfile.TemporaryDirectory(prefix="dicomnode-bench-", dir=plan.folder) as scratch:
        bench = _Bench(plan, Path(scratch), say)
        bench.measure(cases)
        bench.profile(cases)
    rows = bench.rounds.rows()
    told = ratios(rows)
    return Report(
        subject="ingest",
        machine=machine(plan.folder),
        versions=receivers.versions(),
        began=began,
        seconds=time.time() - began,
        rows=rows,
        ratios=told,
        best_ratios=ratios(rows, best=True),
        goals=tuple(one for one in goals(rows, told) if not plan.cases or one.case in plan.cases),
        left_out=tuple(bench.left_out.values()),
        profiles=bench.profiles,
        notes=bench.notes,
    )


class _Bench:
    """One bench under way."""

    def __init__(self, plan: IngestPlan, scratch: Path, say: Say) -> None:
        self._plan, self._scratch, self._say = plan, scratch, say
        self._shim = shim.compiled(scratch)
        self._objects: dict[str, SentObject] = {}
        self.rounds = Rounds()
        self.left_out: dict[tuple[str, str], LeftOut] = {}
        self.profiles: dict[str, list[dict[str, object]]] = {}
        self.notes: dict[str, object] = {"announced_pdu_bytes": {}}

    def measure(self, cases: Sequence[Case]) -> None:
        """All rounds of all cases, as long as there is time for another round."""
        began = time.monotonic()
        for number in range(self._plan.rounds):
            started = time.monotonic()
            for place, case in enumerate(cases):
                share = (number + place / len(cases)) / self._plan.rounds
                self._round(case, number, share)
            now = time.monotonic()
            self.notes["rounds"] = number + 1
            if self._plan.most_s is not None and now - began + (now - started) > self._plan.most_s:
                break

    def profile(self, cases: Sequence[Case]) -> None:
        """One more run of ours, with somebody watching, where one sender's way tells where the time goes."""
        if self._plan.subjects and OURS not in self._plan.subjects:
            return
        for case in (one for one in cases if one.profiled):
            self._say(f"{case.name}: where the time goes", 1.0)
            self._run(case, RECEIVERS[SAMPLED], ())

    def _round(self, case: Case, number: int, share: float) -> None:
        """One round of one case."""
        subjects = [one for one in self._plan.receivers_of(case) if self._can_run(case, one)]
        try:
            with self._network(case) as prefix:
                if case.measures_sync:
                    self._measure_sync(case)
                for receiver in rotated(subjects, number):
                    self._say(f"{case.name}: {receiver.name}", share)
                    self._run(case, receiver, prefix)
        except _NoNamespace as error:
            self._leave_out(case, "every subject", str(error))

    def _can_run(self, case: Case, receiver: Receiver) -> bool:
        if (case.name, receiver.name) in self.left_out:
            return False
        needs_shim = receiver.any_address or receiver.name == UNSYNCED or case.least_sync_ms is not None
        why = receiver.missing
        if not why and case.nagled and receivers.found("storescu") is None:
            why = "storescu is not installed — apt-get install --no-install-recommends dcmtk"
        if not why and needs_shim and self._shim is None:
            why = shim.NO_COMPILER
        if why:
            self._leave_out(case, receiver.name, why)
        return not why

    def _leave_out(self, case: Case, subject: str, why: str) -> None:
        self.left_out[case.name, subject] = LeftOut(case.name, subject, why)

    @contextmanager
    def _network(self, case: Case) -> Iterator[Sequence[str]]:
        if not case.nagled:
            yield ()
            return
        try:
            namespace = small_mtu()
            prefix = namespace.__enter__()
        except MeasurementFailed as error:
            raise _NoNamespace(str(error)) from error
        try:
            yield prefix
        finally:
            namespace.__exit__(None, None, None)

    def _object(self, kind: str) -> SentObject:
        if kind not in self._objects:
            made = multi_frame(self._plan.largest_bytes) if kind == "GB" else KINDS[kind]()
            self._objects[kind] = made
        return renewed(self._objects[kind])

    def _measure_sync(self, case: Case) -> None:
        taken = disk.sync_ms(self._scratch, self._object(case.kind).size_bytes, _SYNCS_A_ROUND)
        self.rounds.add(case.name, DISK, SYNC, statistics.median(taken))

    def _run(self, case: Case, receiver: Receiver, prefix: Sequence[str]) -> None:
        """One round of one subject. A peer that fails is left out from here on; that we fail is an error."""
        folder = self._scratch / "run"
        folder.mkdir()
        try:
            self._measured(case, receiver, prefix, folder)
        except MeasurementFailed as error:
            if receiver.name.startswith(OURS):
                raise MeasurementFailed(f"{case.name}, {receiver.name}: {error.what}", error.remedy) from error
            self._leave_out(case, receiver.name, error.what)
        finally:
            disk.put_away(folder, self._scratch / "done")

    def _measured(self, case: Case, receiver: Receiver, prefix: Sequence[str], folder: Path) -> None:
        sent, images, port = self._object(case.kind), self._plan.images_of(case, receiver), free_port()
        environment, counted = self._environment(case, receiver, folder)
        command = receiver.command(folder, port)
        os.sync()  # what the subject before left unwritten must not be paid for by this one
        running = Running(command, port, folder, environment, prefix)
        try:
            running.forget_peak()
            before = counted.calls if counted else 0
            if receiver.name == SAMPLED:
                running.signal(signal.SIGUSR1)
            took = self._sent(case, receiver, sent, folder, port, images, prefix)
            if receiver.name == SAMPLED:
                running.signal(signal.SIGUSR1)
            syncs = counted.calls - before if counted else None
            if not case.nagled:  # storescu makes UIDs of its own
                receiver.check(folder, sent, images)
            if receiver.name == SAMPLED:  # its times are not ours: it is watched
                running.terminate()
                self.profiles[case.name] = profile.read(folder / receivers.SAMPLES)
            else:
                self._keep(case, receiver, running, took, None if syncs is None else syncs / images)
        finally:
            running.kill()

    def _sent(
        self, case: Case, receiver: Receiver, sent: SentObject, folder: Path, port: int, images: int, prefix: Sequence[str]
    ) -> Sent:
        if case.nagled:
            storescu = receivers.found("storescu") or "storescu"
            return sending.nagled(sent, folder, port, receiver.called_ae, images=images, prefix=prefix, storescu=storescu)
        return sending.generated(
            sent,
            folder,
            port,
            receiver.called_ae,
            images=images,
            associations=case.associations,
            one_each=case.one_each,
            bare=receiver.bare,
        )

    def _environment(self, case: Case, receiver: Receiver, folder: Path) -> tuple[Mapping[str, str], shim.Counted | None]:
        """Variables of the process under test, and the counter of its syncs where the shim is in the way."""
        if self._shim is None:
            return {}, None
        loopback = shim.on_loopback(self._shim) if receiver.any_address else {}
        if receiver.name != UNSYNCED and case.least_sync_ms is None:
            return loopback, None
        counted = shim.Counted(self._shim, folder / "syncs", stub=receiver.name == UNSYNCED, least_ms=case.least_sync_ms)
        return {**loopback, **counted.environment}, counted

    def _keep(self, case: Case, receiver: Receiver, running: Running, took: Sent, syncs: float | None) -> None:
        """Rows of one run. Raises MeasurementFailed where the shim saw no sync: then it was not in the way."""
        add, name = self.rounds.add, receiver.name
        if syncs == 0.0:
            raise MeasurementFailed("not one sync went through the shim", "this subject cannot be measured under it")
        add(case.name, name, IMAGE, took.ms_per_image)
        if took.median_image_ms is not None and case.associations == 1 and case.kind != "GB" and not case.one_each:
            add(case.name, name, MEDIAN_IMAGE, took.median_image_ms)
        if syncs is not None:
            add(case.name, name, SYNCS, syncs)
        if took.announced_pdu is not None:
            self.notes["announced_pdu_bytes"][name] = took.announced_pdu  # type: ignore[index]
        if case.kind == "GB":
            add(case.name, name, GROWTH, running.growth_mb)
        if name == OURS and case.associations > 4:
            add(case.name, name, PEAK, running.peak_mb)
        if name == OURS and case.measures_sync:
            add("start", name, SECONDS, running.startup_s)


class _NoNamespace(Exception):
    """MTU 1500 cannot be had here."""
