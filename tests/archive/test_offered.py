"""Who may ask, and what is offered: what was received and stands."""

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from pydicom.dataset import Dataset
from pynetdicom import build_role
from pynetdicom.sop_class import Verification

from dicomnode import logs
from dicomnode.domain.errors import PeerUnreachable
from dicomnode.domain.routes import Peer
from dicomnode.domain.uids import derived_uid
from dicomnode.network import associate
from dicomnode.network.contexts import UNCOMPRESSED
from dicomnode.roles.retention import Retention
from dicomnode.settings import Settings
from tests.archive.holding import GET_MODELS, MOVE, STUDY_ROOT, Holding, find, identifier
from tests.archive.speaking import LEVEL, key, request
from tests.peers.postgresql import PostgreSQL
from tests.peers.waiting import wait_until
from tests.receiving.raw import DATA, RawSender, pdu, pdv
from tests.receiving.reception import local_peer
from tests.receiving.samples import CT, ELE, changed, ct


def offered(holding: Holding, study: str = "1.2.1") -> list[str]:
    """What C-FIND lists of a study, which is what C-GET gives of it."""
    with holding.asking(STUDY_ROOT) as association:
        studies, _ = find(
            association, identifier("STUDY", StudyInstanceUID=study, NumberOfStudyRelatedInstances=None), STUDY_ROOT
        )
        wanted = identifier("IMAGE", StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1", SOPInstanceUID="")
        images, _ = find(association, wanted, STUDY_ROOT)
    listed = sorted(str(image.SOPInstanceUID) for image in images)
    got, _ = holding.got(identifier("STUDY", StudyInstanceUID=study), [(CT, ELE)])
    assert sorted(got) == listed
    assert [int(one.NumberOfStudyRelatedInstances) for one in studies] == ([len(listed)] if listed else [])
    return listed


def images(study: str = "1.2.1", count: int = 2) -> list[Dataset]:
    uids = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1"}
    return [changed(ct(), SOPInstanceUID=f"{study}.1.{number}", **uids) for number in range(1, count + 1)]


ALL = ["1.2.1.1.1", "1.2.1.1.2"]


def test_what_a_rejection_note_names_is_not_offered(holding: Holding) -> None:
    holding.take(*images())
    assert offered(holding) == ALL
    note = holding.note_in("1.2.1")
    holding.registry.keeping.carry_out_note(note, ["1.2.1.1.1"], "113001", "rejected")
    assert offered(holding) == ["1.2.1.1.2"]


def test_a_study_on_which_an_operator_has_to_decide_is_not_offered(holding: Holding) -> None:
    holding.take(*images())
    holding.take(
        changed(ct(), StudyInstanceUID="1.2.1", SeriesInstanceUID="1.2.1.1", SOPInstanceUID="1.2.1.1.3", PatientID="P-9")
    )
    assert offered(holding) == []
    holding.registry.cancel("S1")  # the operator: it goes on as it was stored
    assert offered(holding) == [*ALL, "1.2.1.1.3"]


def test_other_content_in_quarantine_is_not_offered_nor_its_series_until_decided(holding: Holding) -> None:
    first, second = images()
    holding.take(first, second)
    pixels = bytearray(first.PixelData)
    pixels[0] ^= 1
    holding.take(changed(first, PixelData=bytes(pixels)))
    assert offered(holding) == []
    holding.registry.retry("E1")
    assert offered(holding) == ALL
    assert holding.got(identifier("STUDY", StudyInstanceUID="1.2.1"), [(CT, ELE)])[1].failed == 0


def test_what_is_committed_is_given_back_though_others_were_purged_and_though_it_is_held(holding: Holding) -> None:
    holding.take(*images("1.2.1"), *images("1.2.2"))
    holding.settle()
    now = datetime.now(UTC)
    holding.registry.promises.keep(ALL, now + timedelta(days=365))
    retention = Retention(holding.registry, holding.store, Settings(retention={"sources_days": 1.0}))  # type: ignore[arg-type]
    purged = retention.sweep(now + timedelta(days=60))
    assert (purged.studies, purged.files) == (1, 2)
    assert offered(holding, "1.2.2") == []
    assert offered(holding) == ALL
    holding.take(
        changed(ct(), StudyInstanceUID="1.2.1", SeriesInstanceUID="1.2.1.1", SOPInstanceUID="1.2.1.1.3", PatientID="P-9")
    )
    assert offered(holding) == ALL, "held now, and promised all the same; what came with another patient waits"
    holding.registry.holdings._clock = lambda: now + timedelta(days=366)
    assert offered(holding) == [], "the promise has ended, and somebody has still to say whose pictures these are"


def test_results_of_this_software_are_not_offered(holding: Holding) -> None:
    ours = changed(images(count=3)[2], SOPInstanceUID=derived_uid(["a result"]))
    holding.take(*images(), ours)
    assert holding.reception.known(str(ours.SOPInstanceUID)).ours
    assert offered(holding) == ALL


@pytest.mark.parametrize(
    ("may", "accepted"),
    [
        ("query", {STUDY_ROOT}),
        ("retrieve", {MOVE, GET_MODELS["study"], CT}),
        ("query retrieve", {STUDY_ROOT, MOVE, GET_MODELS["study"], CT}),
        ("store", {CT}),
        ("", set()),
    ],
    ids=["query", "retrieve", "both", "store", "nothing"],
)
def test_contexts_are_accepted_as_the_peer_may(make_holding: Callable[..., Holding], may: str, accepted: set[str]) -> None:
    holding = make_holding(peers=[Peer("viewer", "VIEWER", "127.0.0.1", 104, frozenset(may.split()))])
    asked = (STUDY_ROOT, MOVE, GET_MODELS["study"], CT, str(Verification))
    contexts = [(uid, UNCOMPRESSED) for uid in asked]
    role = build_role(CT, scu_role=True, scp_role=True)
    with associate(local_peer(holding.port), "VIEWER", contexts, roles=[role]) as association:
        assert {str(one.abstract_syntax) for one in association.accepted_contexts} - {str(Verification)} == accepted
        (roles,) = [(one.as_scu, one.as_scp) for one in association.accepted_contexts if one.abstract_syntax == CT] or [None]
        assert roles in (None, ("store" in may, "retrieve" in may))
    with pytest.raises(PeerUnreachable, match="calling"), associate(local_peer(holding.port), "STRANGER", contexts):
        pass


def test_who_may_only_retrieve_cannot_store(make_holding: Callable[..., Holding], tmp_path: Path) -> None:
    holding = make_holding(peers=[Peer("viewer", "VIEWER", "127.0.0.1", 104, frozenset({"retrieve"}))])
    with pytest.raises(PeerUnreachable, match="no presentation context"):
        holding.take(*images(), calling="VIEWER")
    assert holding.registry.instance(ALL[0]) is None


def test_nothing_of_what_was_asked_reaches_the_log(holding: Holding) -> None:
    before = structlog.get_config()
    said = io.StringIO()
    logs.configure("receive", form="json", stream=said)
    try:
        holding.take(*[changed(one, PatientName="XQZNAME^XQZGIVEN", PatientID="XQZID77") for one in images()])
        holding.found("STUDY", PatientName="XQZNAME*", PatientID="XQZID77", StudyInstanceUID="")
        holding.answers("STUDY", StudyDate="XQZDATE")
        holding.answers("IMAGE", PatientName="XQZNAME*", StudyInstanceUID="1.2.1")
        holding.moved("XQZTITLE", identifier("STUDY", StudyInstanceUID="1.2.1"))
        path = holding.store.absolute(holding.reception.known(ALL[0]).path)
        path.write_bytes(path.read_bytes()[:-2])
        _, final = holding.got(identifier("STUDY", StudyInstanceUID="1.2.1"), [(CT, ELE)])
        assert final.failed == 1
    finally:
        structlog.configure(**before)
    assert said.getvalue().count("a query was answered") >= 5
    for secret in ("XQZ", "1.2.1.1", str(path.name)):
        assert secret not in said.getvalue()
    assert '"code": "unknown_destination"' in said.getvalue()


def test_a_database_server_answers_alike(postgresql: PostgreSQL, tmp_path: Path) -> None:
    holding = Holding(tmp_path / "node", database=postgresql.create("archive"))
    try:
        holding.take(*images("1.2.1"), *images("1.2.2", 1))
        assert offered(holding) == ALL
        counts = dict.fromkeys(("NumberOfPatientRelatedStudies", "NumberOfPatientRelatedInstances"))
        (patient,) = holding.found("PATIENT", GET_MODELS["patient"][:-1] + "1", PatientID="", **counts)
        assert (patient.NumberOfPatientRelatedStudies, patient.NumberOfPatientRelatedInstances) == (2, 3)
        wanted = dict.fromkeys(("ModalitiesInStudy", "SOPClassesInStudy", "NumberOfStudyRelatedSeries"))
        studies = holding.found("STUDY", StudyInstanceUID="", StudyDate="20260101-20260131", PatientName="test*", **wanted)
        assert [(one.ModalitiesInStudy, one.NumberOfStudyRelatedSeries) for one in studies] == [("CT", 1), ("CT", 1)]
        series = holding.found("SERIES", StudyInstanceUID="1.2.1", SeriesInstanceUID="", NumberOfSeriesRelatedInstances=None)
        assert [one.NumberOfSeriesRelatedInstances for one in series] == [2]
    finally:
        holding.stop()


def test_who_had_what_is_told_by_status_and_explain(holding: Holding) -> None:
    holding.take(*images("1.2.1"), *images("1.2.2", 1))
    assert holding.registry.status_counts()["counts"]["retrievals"] == 0  # type: ignore[index]
    holding.found("STUDY", StudyInstanceUID="1.2.1")
    path = holding.store.absolute(holding.reception.known(ALL[0]).path)
    path.write_bytes(path.read_bytes()[:-2])
    holding.got(identifier("STUDY", StudyInstanceUID=["1.2.1", "1.2.2"]), [(CT, ELE)])
    assert holding.registry.status_counts()["counts"]["retrievals"] == 2  # type: ignore[index]
    (told,) = holding.registry.explain("1.2.1")["retrievals"]  # type: ignore[attr-defined]
    assert (told["peer"], told["what"]) == ("loopback", "1 of 2 instances by C-GET")
    (told,) = holding.registry.explain("1.2.2")["retrievals"]  # type: ignore[attr-defined]
    assert told["what"] == "1 of 1 instances by C-GET"


def test_who_leaves_before_the_end_is_told_too(holding: Holding) -> None:
    holding.take(*images("1.2.1"))
    with RawSender(holding.port) as raw:
        contexts = [(GET_MODELS["study"], (ELE,)), (CT, (ELE,))]
        assert raw.associate(contexts=contexts, items=[build_role(CT, scp_role=True)]) == 2
        head, wanted = request(0x0010, model=GET_MODELS["study"]), LEVEL + key(0x0020000D, "UI", "1.2.1\0")
        raw.send(pdu(DATA, pdv(head, command=True, last=True)) + pdu(DATA, pdv(wanted, command=False, last=True)))
        assert raw.receive()[0] == DATA, "the first image is on its way"
    wait_until(lambda: holding.registry.explain("1.2.1")["retrievals"], what="the note")  # type: ignore[attr-defined]
    (told,) = holding.registry.explain("1.2.1")["retrievals"]  # type: ignore[attr-defined]
    assert told["what"] == "0 of 1 instances by C-GET"
