"""A node that answers queries, in this process: real store, real registry on SQLite, real listener."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import build_role, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)
from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from dicomnode.archive import Archive, ArchiveLimits
from dicomnode.domain.routes import Peer
from dicomnode.network import associate
from dicomnode.network.contexts import UNCOMPRESSED
from dicomnode.network.reactor import hold
from dicomnode.receiving import Limits
from dicomnode.registry import Registry
from dicomnode.registry.rejections import ReceivedNote
from dicomnode.registry.tables import Instance, Series, Study
from tests.peers.processes import tool
from tests.receiving.reception import Reception, data_set_of, local_peer
from tests.receiving.samples import saved

STUDY_ROOT = str(StudyRootQueryRetrieveInformationModelFind)
PATIENT_ROOT = str(PatientRootQueryRetrieveInformationModelFind)


MOVE = str(StudyRootQueryRetrieveInformationModelMove)
GET_MODELS = {
    "study": str(StudyRootQueryRetrieveInformationModelGet),
    "patient": str(PatientRootQueryRetrieveInformationModelGet),
}


@dataclass(frozen=True)
class Final:
    """The last response of a retrieval. pending: how many came before it."""

    status: int
    remaining: int | None
    completed: int | None
    failed: int | None
    failed_uids: list[str]
    pending: int


class Holding:
    """`peers`: who is listed, nobody by default. guard: limits of the listener. Ended by `stop`."""

    def __init__(
        self,
        folder: Path,
        *,
        peers: Sequence[Peer] = (),
        limits: ArchiveLimits | None = None,
        database: str | None = None,
        guard: Limits | None = None,
        **options: Any,
    ) -> None:
        self.folder = folder
        self.reception = Reception(folder / "node", {"peers": peers, **({"limits": guard} if guard else {}), **options})
        if database is not None:
            self.reception.registry.close()
            self.reception.registry = self.reception.ledger = Registry(database)
            self.reception.registry.prepare()
        self.registry, self.store = self.reception.registry, self.reception.store
        self.archive = Archive(self.registry.holdings, self.store, peers, "DICOMNODE", limits or ArchiveLimits())
        self.reception.options["queries"] = self.archive
        self.reception.start()
        self.port = self.reception.port

    def stop(self) -> None:
        self.reception.stop()

    def take(self, *datasets: Dataset, calling: str = "MODALITY") -> None:
        """C-STORE these."""
        statuses = self.reception.send(*[saved(one, self.folder) for one in datasets], calling=calling)
        assert set(statuses) == {0}, statuses

    def settle(self) -> None:
        """As routing leaves studies that it has judged and for which no route is set."""
        with self.registry._database.write() as session:
            session.execute(update(Study).values(unsettled=False))
            session.execute(update(Series).values(state="complete"))

    def note_in(self, study_instance_uid: str) -> ReceivedNote:
        """A rejection note of this study, as the sweep finds it."""
        known = self.registry.find_study(study_instance_uid)
        return ReceivedNote(0, f"S{known}", Path(), "MODALITY", "127.0.0.1")

    def rows_like(self, sop_instance_uid: str, count: int, *, same_series: bool = False) -> None:
        """So many more instances that share the file of this one, each in a study of its own unless said."""
        with self.registry._database.write() as session:
            instance = _row(session, Instance, Instance.sop_instance_uid == sop_instance_uid)
            series = _row(session, Series, Series.id == instance["series_id"])
            study = _row(session, Study, Study.id == series["study_id"])
            first = 1 + int(session.scalar(select(func.max(Study.id))) or 0)
            numbers = range(first, first + count)
            root = study["study_instance_uid"]
            if not same_series:
                session.execute(insert(Study), [study | {"id": n, "study_instance_uid": f"{root}.{n}"} for n in numbers])
                many = [series | {"id": n, "study_id": n, "series_instance_uid": f"{root}.{n}.1"} for n in numbers]
                session.execute(insert(Series), many)
            images = []
            for n in numbers:
                header = instance["attributes"] | {"InstanceNumber": str(n)}
                one = {"sop_instance_uid": f"{root}.{n}.1.{n}", "attributes": header, "instance_number": n}
                images.append(instance | one | ({} if same_series else {"series_id": n}))
            session.execute(insert(Instance), [{name: row[name] for name in row if name != "id"} for row in images])

    @contextmanager
    def asking(self, *models: str, calling: str = "VIEWER") -> Iterator[Association]:
        contexts = [(model, UNCOMPRESSED) for model in models]
        with associate(local_peer(self.port), calling, contexts) as association:
            yield association

    def found(self, level: str, model: str = STUDY_ROOT, **keys: Any) -> list[Dataset]:
        """The matches of a query that ends with Success."""
        matches, statuses = self.answers(level, model, **keys)
        assert statuses[-1] == 0x0000, [hex(status) for status in statuses]
        return matches

    def answers(self, level: str, model: str = STUDY_ROOT, **keys: Any) -> tuple[list[Dataset], list[int]]:
        """The matches, and all statuses."""
        with self.asking(model) as association:
            return find(association, identifier(level, **keys), model)

    def findscu(self, *words: str) -> list[Dataset]:
        """The matches that DCMTK's findscu was given."""
        answers = self.folder / "answers"
        answers.mkdir(exist_ok=True)
        for old in answers.glob("rsp*.dcm"):
            old.unlink()
        command = [tool("findscu", "dcmtk"), "-aec", "DICOMNODE", "-aet", "VIEWER", "-X", "-od", answers, *words]
        subprocess.run([*map(str, command), "127.0.0.1", str(self.port)], check=True, capture_output=True, timeout=60)
        return [dcmread(path, force=True) for path in sorted(answers.glob("rsp*.dcm"))]

    def moved(self, destination: str, asked: Dataset, *, calling: str = "VIEWER") -> Final:
        """How a C-MOVE ended."""
        with self.asking(MOVE, calling=calling) as association:
            hold(association)
            return _final(list(association.send_c_move(asked, destination, MOVE)))

    def got(
        self, asked: Dataset, kinds: Sequence[tuple[str, str | Sequence[str]]], *, model: str = "study"
    ) -> tuple[dict[str, bytes], Final]:
        """What a C-GET brought, by SOP Instance UID, and how it ended. kinds: (SOP class, transfer syntax) that we take."""
        brought: dict[str, bytes] = {}

        def take(event: evt.Event) -> int:
            brought[str(event.request.AffectedSOPInstanceUID)] = event.encoded_dataset(include_meta=False)
            return 0x0000

        uid = GET_MODELS[model]
        contexts = [
            (uid, UNCOMPRESSED),
            *((sop_class, (syntax,) if isinstance(syntax, str) else syntax) for sop_class, syntax in kinds),
        ]
        roles = [build_role(sop_class, scp_role=True) for sop_class in dict.fromkeys(sop_class for sop_class, _ in kinds)]
        with associate(
            local_peer(self.port), "VIEWER", contexts, roles=roles, handlers=[(evt.EVT_C_STORE, take)]
        ) as association:
            hold(association)
            final = _final(list(association.send_c_get(asked, uid)))
        return brought, final


def _final(responses: list[tuple[Dataset, Dataset | None]]) -> Final:
    status, content = responses[-1]
    failed = (content.get("FailedSOPInstanceUIDList") if content else None) or []
    return Final(
        int(status.Status),
        status.get("NumberOfRemainingSuboperations"),
        status.get("NumberOfCompletedSuboperations"),
        status.get("NumberOfFailedSuboperations"),
        sorted([str(failed)] if isinstance(failed, str) else map(str, failed)),
        len(responses) - 1,
    )


def by_uid(folder: Path) -> dict[str, bytes]:
    """SOP Instance UID → data set of each file there."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    return {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID): data_set_of(path) for path in files}


def getscu(holding: Holding, folder: Path, model: str, *keys: str) -> dict[str, bytes]:
    """What DCMTK's getscu is given, bit by bit."""
    folder.mkdir()
    _tool("getscu", "-B", "-od", folder, *_asked(holding, model, keys))
    return by_uid(folder)


def movescu(holding: Holding, destination: str, model: str, *keys: str) -> str:
    """What DCMTK's movescu says."""
    return _tool("movescu", "-v", "-aem", destination, *_asked(holding, model, keys))


def _asked(holding: Holding, model: str, keys: Sequence[str]) -> list[str]:
    words = [word for key in keys for word in ("-k", key)]
    return [model, "-aec", "DICOMNODE", "-aet", "VIEWER", *words, "127.0.0.1", str(holding.port)]


def _tool(name: str, *words: str | Path) -> str:
    done = subprocess.run(
        [tool(name, "dcmtk"), *map(str, words)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def _row(session: Session, table: Any, condition: Any) -> dict[str, Any]:
    row = session.scalars(select(table).where(condition)).one()
    return {column.name: getattr(row, column.name) for column in table.__table__.columns}


def identifier(level: str, **keys: Any) -> Dataset:
    asked = Dataset()
    if level:
        asked.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(asked, keyword, value)
    return asked


def find(association: Association, asked: Dataset, model: str) -> tuple[list[Dataset], list[int]]:
    hold(association)
    matches, statuses = [], []
    for response, match in association.send_c_find(asked, model):
        statuses.append(int(response.Status))
        if match is not None:
            matches.append(match)
    return matches, statuses
