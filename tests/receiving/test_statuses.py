"""Every answer to a C-STORE comes from one table, and the table says what is sent."""

import ast
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom.uid import MRImageStorage, generate_uid

import dicomnode.receiving
from dicomnode.domain import statuses
from dicomnode.domain.errors import DatabaseUnreachable, OutOfSpace
from dicomnode.domain.statuses import CANNOT_UNDERSTAND, STORE_CONDITIONS, SUCCESS, Outcome, outcome_of_store
from dicomnode.receiving import Limits
from dicomnode.receiving.answers import answer
from dicomnode.registry import ConflictKind
from tests.receiving.reception import Reception, context
from tests.receiving.samples import CT, ELE, changed, ct, encoded, store_bytes
from tests.receiving.test_header_stream import DEFLATED, packed
from tests.registry.samples import queue_job

LONG_AGO = "2026-01-01 00:00:00.000000"
OF_EACH_JOB = ("id", "version", "not_before")
LONGEST_COMMENT = 64  # VR LO (PS3.5 Table 6.2-1)
MODULES = sorted(Path(dicomnode.receiving.__file__).parent.glob("*.py"))


def calls(name: str) -> list[ast.Call]:
    """Every call of this function in the room, in the order of the files."""
    nodes = (node for path in MODULES for node in ast.walk(ast.parse(path.read_text())))
    return [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name]


def words(node: ast.expr) -> set[str]:
    """The outcomes that an argument can be; of an f-string all that its prefix begins."""
    if isinstance(node, ast.IfExp):
        return words(node.body) | words(node.orelse)
    if isinstance(node, ast.JoinedStr):
        (prefix,) = (str(part.value) for part in node.values if isinstance(part, ast.Constant))
        return {prefix + kind.value for kind in ConflictKind if kind is not ConflictKind.IDENTITY}
    return {str(node.value)} if isinstance(node, ast.Constant) else set()


def test_all_answers_are_in_the_table_and_all_of_the_table_is_answered() -> None:
    used = {word for name in ("answer", "Refused") for call in calls(name) for word in words(call.args[0])}
    for call in calls("StoreAnswer"):
        if len(call.args) > 1 and isinstance(call.args[0], ast.Name):
            (word,) = words(call.args[1])
            assert STORE_CONDITIONS[word].status == getattr(statuses, call.args[0].id), word
            used.add(word)
    assert used == set(STORE_CONDITIONS)


def test_every_comment_fits_into_its_element() -> None:
    comments = [one.comment for one in STORE_CONDITIONS.values()]
    whats = [call.args[0] for call in calls("Unscannable")]
    assert len(whats) > 5
    for what in whats:
        parts = what.values if isinstance(what, ast.JoinedStr) else [what]
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "4000000" for part in parts)
        comments.append(f"unreadable data set: {text}")
    for comment in comments:
        assert len(comment) <= LONGEST_COMMENT, comment
        assert comment.isascii()
        assert "\\" not in comment


def test_what_may_be_sent_again_is_what_senders_take_as_passing() -> None:
    for name, one in STORE_CONDITIONS.items():
        meaning = outcome_of_store(one.status)
        if one.status == SUCCESS:
            assert meaning is Outcome.ACCEPTED
        elif one.again:
            assert meaning in {Outcome.TRY_AGAIN, Outcome.DOUBTFUL}, name
        else:
            assert meaning is (Outcome.DOUBTFUL if one.status == CANNOT_UNDERSTAND else Outcome.REJECTED), name


IMAGE = ct()
UNREADABLE = b"\x08\x00\x05\x00??\x04\x00ISO "

type_sent = tuple[str, str, bytes | None]  # SOP Instance UID of the command, transfer syntax, data set


@pytest.mark.parametrize(
    ("outcome", "sent", "comment"),
    [
        ("other_class", (IMAGE.SOPInstanceUID, ELE, encoded(changed(IMAGE, SOPClassUID=MRImageStorage))), ""),
        ("other_instance", (generate_uid(), ELE, encoded(IMAGE)), ""),
        ("incomplete", (IMAGE.SOPInstanceUID, ELE, None), ""),
        (
            "missing_uid",
            (IMAGE.SOPInstanceUID, ELE, encoded(changed(IMAGE, StudyInstanceUID=None))),
            "StudyInstanceUID is missing",
        ),
        (
            "missing_uid",
            (IMAGE.SOPInstanceUID, ELE, encoded(changed(IMAGE, StudyInstanceUID=""))),
            "StudyInstanceUID is missing",
        ),
        ("unscannable", (IMAGE.SOPInstanceUID, ELE, encoded(IMAGE)[:99]), "unreadable data set: it ends inside an element"),
        ("unscannable", (IMAGE.SOPInstanceUID, ELE, UNREADABLE), "unreadable data set: an element has no VR"),
        ("deflated", (IMAGE.SOPInstanceUID, DEFLATED, b"\xff" * 100), ""),
        ("deflated_too_large", (IMAGE.SOPInstanceUID, DEFLATED, packed(encoded(changed(IMAGE, PixelData=bytes(2 << 20))))), ""),
    ],
)
def test_refusals_get_the_tables_status_and_comment(
    make_reception: Callable[..., Reception], outcome: str, sent: type_sent, comment: str
) -> None:
    reception = make_reception(limits=Limits(max_inflated_bytes=1 << 20))
    instance, syntax, data_set = sent
    with reception.associated(context(CT, syntax)) as association:
        response = store_bytes(association, CT, instance, data_set)
    assert response.Status == STORE_CONDITIONS[outcome].status
    assert response.ErrorComment == (comment or STORE_CONDITIONS[outcome].comment)
    assert reception.files("instances") == reception.files("quarantine") == []


def test_a_bad_uid_is_named(reception: Reception) -> None:
    data_set = encoded(changed(IMAGE, StudyInstanceUID="1.2.3")).replace(b"1.2.3\0", b"1\\2.3\0")
    with reception.associated(context(CT, ELE)) as association:
        response = store_bytes(association, CT, IMAGE.SOPInstanceUID, data_set)
    assert (response.Status, response.ErrorComment) == (CANNOT_UNDERSTAND, "StudyInstanceUID is no UID")


@pytest.mark.parametrize(
    ("failing", "method", "error", "outcome"),
    [
        ("store", "check_space", OutOfSpace("the disk is full", "free some"), "out_of_resources"),
        ("registry", "add_instance", DatabaseUnreachable("the database does not answer", "wait"), "processing_failure"),
    ],
)
def test_what_passes_is_answered_so_and_the_next_object_is_taken(
    reception: Reception, monkeypatch: pytest.MonkeyPatch, failing: str, method: str, error: Exception, outcome: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    with reception.associated(context(CT, ELE)) as association:
        with monkeypatch.context() as while_failing:
            while_failing.setattr(getattr(reception, failing), method, fails)
            refused = store_bytes(association, CT, IMAGE.SOPInstanceUID, encoded(IMAGE))
        taken = store_bytes(association, CT, IMAGE.SOPInstanceUID, encoded(IMAGE))
    condition = STORE_CONDITIONS[outcome]
    assert (refused.Status, refused.ErrorComment) == (condition.status, condition.comment)
    assert taken.Status == SUCCESS
    assert reception.kept_data_set(IMAGE.SOPInstanceUID) == encoded(IMAGE)


def test_ten_thousand_jobs_that_wait_are_an_alarm_and_refuse_nothing(reception: Reception) -> None:
    first = ct()
    with reception.associated(context(CT, ELE)) as association:
        assert store_bytes(association, CT, first.SOPInstanceUID, encoded(first)).Status == SUCCESS
        assert queue_job(reception.registry) == ["J1"]
        with closing(sqlite3.connect(reception.root / "dicomnode.db")) as rows, rows:
            names = [name for _, name, *_ in rows.execute("PRAGMA table_info(jobs)") if name not in OF_EACH_JOB]
            (like,) = rows.execute(f"SELECT {', '.join(names)} FROM jobs").fetchall()  # noqa: S608 - our own columns
            places = ", ".join("?" * (len(names) + len(OF_EACH_JOB)))
            waiting = [(*like, number, number, LONG_AGO) for number in range(2, 10_001)]
            rows.executemany(f"INSERT INTO jobs ({', '.join([*names, *OF_EACH_JOB])}) VALUES ({places})", waiting)  # noqa: S608
        alarms = reception.registry.alarms.standing(queue_longer_than=timedelta(minutes=30), failed_within=timedelta(days=7))
        assert [(one.kind.value, one.count) for one in alarms] == [("queue_deep", 10_000)]
        new = ct()
        for image in (
            new,
            changed(new, SOPInstanceUID=generate_uid()),
        ):  # of a new study, and of a series that is known by then
            assert store_bytes(association, CT, image.SOPInstanceUID, encoded(image)).Status == SUCCESS
            assert reception.kept_data_set(image.SOPInstanceUID) == encoded(image)


def test_an_outcome_that_is_not_in_the_table_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        answer("fine")
    assert answer("missing_uid", "StudyInstanceUID is missing").comment == "StudyInstanceUID is missing"
