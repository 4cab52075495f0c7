"""A node that can be killed a hundred times, a modality that sends again, and what must be there in the end."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import pydicom
from pydicom.uid import generate_uid
from sqlalchemy import NullPool, create_engine, text

from dicomnode import network
from dicomnode.domain.errors import PeerUnreachable
from dicomnode.domain.routes import Peer
from dicomnode.registry import Registry
from dicomnode.roles.leftovers import sweep_spool
from dicomnode.storage import KnownFile, Store, fsck
from tests.faults.crash_points import CrashPoint
from tests.journeys.hospital import OUR_CLASSES, PIPELINES
from tests.peers.node import Node, chest_route, destination, modality_peer, peer_of
from tests.peers.orthanc import Modality, Orthanc
from tests.peers.waiting import listens, wait_until

CHECKOUT = Path(__file__).parents[2]
PATIENCE_S = 240.0  # of a busy machine; nothing here waits for a time to pass
_STANDING_JOBS = """SELECT state, outcome, attempt, crashes, held, findings FROM jobs
    WHERE study_id = :study AND state != 'superseded'"""
_THEIR_DELIVERIES = """SELECT results.kind, deliveries.state, deliveries.last_error
    FROM deliveries JOIN results ON results.id = result_id JOIN jobs ON jobs.id = deliveries.job_id
    WHERE jobs.study_id = :study AND jobs.state != 'superseded' ORDER BY sending_order"""
_THEIR_IMAGES = """SELECT count(*) FROM instances JOIN series ON series.id = series_id
    WHERE study_id = :study AND NOT instances.ours"""


class Nursery:
    """The process that nodes are forked from; see `nursery`."""

    def __init__(self, log: Path) -> None:
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.nursery"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=CHECKOUT,
                text=True,
                bufsize=1,
                start_new_session=True,
            )
        if not self._read().get("ready"):
            raise RuntimeError(f"the nursery does not start: {log.read_text()[-2000:]}")

    def ask(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or "{}")
        return answer

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)


class MortalNode:
    """A node of the nursery between a modality and a PACS, with the tiny pipeline; lives on in its folder after each kill."""

    def __init__(
        self,
        folder: Path,
        nursery: Nursery,
        pacs: Orthanc,
        *,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        proof: str = "find",
        more_destinations: Sequence[Mapping[str, Any]] = (),
        more_peers: Sequence[Mapping[str, Any]] = (),
        results: Sequence[str] = ("SEG", "SR", "SC"),
    ) -> None:
        """more_destinations: get the results, too, beside the PACS. settings: as of `Node`."""
        tables: dict[str, dict[str, Any]] = {"sweep": {"interval_s": 0.3}, "storage": {"reserve_mb": 0, "reserve_file_mb": 0}}
        for table, values in (settings or {}).items():
            tables.setdefault(table, {}).update(values)
        self.node = Node(
            folder,
            peers=[peer_of(pacs), modality_peer("CT_SCANNER"), *more_peers],
            destinations=[destination("pacs", proof=proof), *more_destinations],
            routes=[
                chest_route(
                    pipeline="tiny",
                    quiet_s=0.7,
                    max_wait_s=120,
                    results=list(results),
                    send_to=["pacs", *(one["name"] for one in more_destinations)],
                )
            ],
            pipelines=[PIPELINES],
            settings=tables,
        )
        self.database_url: str = tables.get("database", {}).get("url") or f"sqlite:///{self.node.data_dir / 'dicomnode.db'}"
        self.pacs, self._nursery = pacs, nursery
        pacs.add_modality(folder.name, Modality(self.node.ae_title, self.node.port))
        self._marker = folder / "killed-here"
        self._pid: int | None = None
        self.peer = Peer("node", self.node.ae_title, "127.0.0.1", self.node.port, frozenset())
        self.acknowledged: dict[str, Path] = {}  # SOP Instance UID → the file that the modality may now delete
        self.kills = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.pacs.remove_modality(self.node.folder.name)

    # --- its life

    def start(self, point: CrashPoint | None = None, fault: Mapping[str, Any] | None = None) -> None:
        """Start it, to die at `point` or to suffer `fault` (`faults.Fault`); back once it listens, or is dead already."""
        self._marker.unlink(missing_ok=True)
        crash = None if point is None else {**asdict(point), "marker": str(self._marker)}
        order = {"start": str(self.node.config), "log": str(self.node.log), "crash": crash, "fault": fault}
        self._pid = self._nursery.ask(**order)["pid"]
        wait_until(lambda: self.died or listens(self.node.port), timeout_s=PATIENCE_S, every_s=0.02, what="the node to listen")

    def stop(self) -> int:
        """SIGTERM to the supervisor, as systemd does; its exit code once all has ended."""
        assert self._pid is not None
        pid, self._pid = self._pid, None
        self._nursery.ask(stop=pid)
        wait_until(lambda: self._nursery.ask(poll=pid)["ended"], timeout_s=PATIENCE_S, what="the node to end in order")
        return int(self._nursery.ask(code=pid)["code"])

    @property
    def died(self) -> bool:
        return self._pid is None or bool(self._nursery.ask(poll=self._pid)["ended"])

    def kill(self) -> None:
        """kill -9 of all its processes."""
        if self._pid is not None:
            self._nursery.ask(kill=self._pid)
            self._pid = None

    def dies_at(self, point: CrashPoint, paths: Sequence[Path]) -> None:
        """Start, send the study once more, and wait until the point is reached."""
        self.start(point)
        taken = False

        def dead() -> bool:
            nonlocal taken
            taken = taken or self.send(paths)
            return self.died

        try:
            wait_until(dead, timeout_s=PATIENCE_S, every_s=0.02, what=f"death {point.name}")
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.node.output()[-3000:]}") from None
        assert self._marker.exists(), f"the node ended, but not {point.name}:\n{self.node.output()[-3000:]}"
        self.kills += 1

    # --- the modality

    def send(self, paths: Sequence[Path]) -> bool:
        """Send what was not yet acknowledged in this round, like a modality; whether all was."""
        contexts = network.store_contexts_for(paths)
        try:
            with network.associate(self.peer, "CT_SCANNER", contexts) as association:
                for path in paths:
                    if network.send_file(association, path) != 0:
                        return False
                    self.acknowledged[_uid(path)] = path
        except (PeerUnreachable, OSError):
            return False
        return True

    def send_until_taken(self, paths: Sequence[Path]) -> None:
        """A modality's patience."""
        wait_until(lambda: self.send(paths), timeout_s=PATIENCE_S, every_s=0.2, what="the study to be taken")

    # --- what must be there

    def registry(self) -> "closing[Registry]":
        return closing(Registry(self.database_url))

    def rows(self, question: str, **values: Any) -> list[tuple[Any, ...]]:
        """What the database answers."""
        engine = create_engine(self.database_url, poolclass=NullPool)
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(question), values)]

    def wait_for_end(self, *study_uids: str, patience_s: float = PATIENCE_S) -> None:
        """Until each study's results are proved to be in the PACS and nothing is left to do there."""
        left = set(study_uids)

        def ended() -> bool:
            assert not self.died, self.node.output()[-3000:]
            with self.registry() as registry:
                left.difference_update([uid for uid in left if registry.find_study(uid) and is_over(registry.explain(uid))])
            return not left

        try:
            wait_until(ended, timeout_s=patience_s, every_s=0.2, what="the studies to end")
        except TimeoutError as error:
            with self.registry() as registry:
                said = [registry.explain(uid)["paragraph"] for uid in left]
            raise TimeoutError(f"{error}: {said}\n{self.node.output()[-3000:]}") from None

    def end_state(self, study_uid: str) -> dict[str, Any]:
        """What a run leaves of one study, without what differs from study to study: keys, times, UIDs."""
        ((study, held),) = self.rows("SELECT id, held FROM studies WHERE study_instance_uid = :uid", uid=study_uid)
        jobs = self.rows(_STANDING_JOBS, study=study)
        deliveries = self.rows(_THEIR_DELIVERIES, study=study)
        ((instances,),) = self.rows(_THEIR_IMAGES, study=study)
        in_pacs = Counter(one.sop_class_uid for one in self.pacs.instances() if one.study_instance_uid == study_uid)
        kinds = {uid: kind for kind, uid in OUR_CLASSES.items()}
        return {
            "held": held,
            "instances": instances,
            "jobs": [(*job[:5], _without_tracking(job[5])) for job in jobs],
            "deliveries": deliveries,
            "in the PACS": {kinds.get(uid, uid): count for uid, count in sorted(in_pacs.items())},
        }

    def must_have_all_and_nothing_else(self) -> None:
        """Every acknowledged instance is there and reads as it was sent; after the sweep no file is without a row."""
        store = Store(self.node.data_dir, reserve_bytes=0)
        with self.registry() as registry:
            for uid, sent in self.acknowledged.items():
                known = registry.instance(uid)
                assert known is not None, "an acknowledged instance has no row"
                assert pydicom.dcmread(store.absolute(known.path)) == pydicom.dcmread(sent), "other bytes than were sent"
            sweep_spool(store, registry, older_than_s=0.0)
            report = fsck(store, (KnownFile(*one) for one in registry.known_files()), verify_digests=True)
        assert report.ok, report


def is_over(explanation: Mapping[str, Any], destination: str = "pacs") -> bool:
    series = explanation["series"]
    jobs = [job for one in series for job in one["jobs"]]
    deliveries = [one for each in series for one in each["deliveries"] if one["destination"] == destination]
    return (
        all(one["state"] == "complete" for one in series)
        and any(job["state"] == "done" for job in jobs)
        and all(job["state"] in {"done", "superseded"} for job in jobs)
        and bool(deliveries)
        and all(one["state"] in {"confirmed", "cancelled"} for one in deliveries)
    )


def _without_tracking(kept: str | dict[str, Any]) -> str:
    findings = json.loads(kept) if isinstance(kept, str) else kept  # SQLite knows no JSON of its own
    for lesion in findings["lesions"]:
        del lesion["tracking_id"]
    return json.dumps(findings, sort_keys=True)


def _uid(path: Path) -> str:
    return str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"], stop_before_pixels=True).SOPInstanceUID)


def another_study(template: Sequence[Path], folder: Path, name: str) -> tuple[str, list[Path]]:
    """The same patient's same images as another study; its UID and files."""
    study, series = (generate_uid(entropy_srcs=[kind, name]) for kind in ("study", "series"))
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for source in template:
        dataset = pydicom.dcmread(source)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=["instance", name, source.name])
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        paths.append(folder / source.name)
        dataset.save_as(paths[-1])
    return study, paths


def pause(seconds: float) -> None:
    """The one wait that is for a time: until a random moment in a node's life."""
    time.sleep(seconds)
