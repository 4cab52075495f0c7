"""Every status that issue and standard name (PS3.4 B.2.3, PS3.7 C), said by a real SCP over a real association."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from dicomnode.delivery import DeliveryPolicy
from dicomnode.domain.results import ResultKind
from tests.delivery.outbox import SOP_CLASSES, Outbox, dicom_destination
from tests.peers.waiting import free_port

# status → state at once, after hours of the same answer, after 14 days of it
SENT, PERMANENT = ("sent", "sent", "sent"), ("rejected", "rejected", "rejected")
PASSING, DOUBTFUL = ("waiting", "waiting", "held"), ("waiting", "rejected", "rejected")
ANSWERS = {
    **dict.fromkeys((0x0000, 0xB000, 0xB006, 0xB007, 0x0111), SENT),
    **dict.fromkeys((0xA700, 0xA7FF), PASSING),
    **dict.fromkeys((0x0110, 0xC000, 0xCFFF, 0x0106, 0x4242), DOUBTFUL),
    **dict.fromkeys((0x0122, 0x0124, 0xA900, 0xA9FF), PERMANENT),
}


@pytest.fixture
def archive() -> Iterator[tuple[int, dict[str, int]]]:
    """Its port, and what it answers to which instance."""
    answers: dict[str, int] = {}
    entity = AE("ARCHIVE")
    for sop_class in (*SOP_CLASSES.values(), Verification):
        entity.add_supported_context(sop_class)
    port = free_port()
    handlers = [(evt.EVT_C_STORE, lambda event: answers[event.request.AffectedSOPInstanceUID])]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    yield port, answers
    server.shutdown()


def test_each_status_has_its_consequence_at_once_after_hours_and_after_two_weeks(
    outbox: Outbox, archive: tuple[int, dict[str, int]]
) -> None:
    port, answers = archive
    for status in ANSWERS:
        (result,) = outbox.finish_a_job("archive", kinds=[ResultKind.SC])
        answers[result.sop_instance_uid] = status
    deliverer = outbox.deliverer(dicom_destination("archive", "ARCHIVE", port), policy=DeliveryPolicy())
    for when, later in enumerate((timedelta(), timedelta(hours=7), timedelta(days=14))):
        outbox.clock.advance(seconds=later.total_seconds())
        deliverer.run_once()
        told = {one["last_status"]: one for one in outbox.deliveries()}
        assert {status: told[f"{status:04X}"]["state"] for status in ANSWERS} == {
            status: states[when] for status, states in ANSWERS.items()
        }
    for status in (0xB000, 0xB006, 0xB007):
        assert told[f"{status:04X}"]["last_error"].startswith(f"delivered with a warning: C-STORE gave {status:04X} (")
    stopped = sum(states[2] in ("rejected", "held") for states in ANSWERS.values())
    alarms = outbox.registry.alarms.standing(queue_longer_than=timedelta(days=99), failed_within=timedelta(days=99))
    kinds = [one.kind.value for one in alarms]
    assert kinds.count("delivery_held") == 2
    assert kinds.count("delivery_rejected") == stopped - 2

    # The operator's hand: again, or never mind.
    for status, answer in ((0xA700, "retry"), (0x0124, "retry"), (0xA900, "cancel")):
        key = str(told[f"{status:04X}"]["id"])
        assert key in (outbox.registry.retry(key) if answer == "retry" else outbox.registry.cancel(key))
    answers.update(dict.fromkeys(answers, 0x0000))
    deliverer.run_once()
    now = {one["id"]: one["state"] for one in outbox.deliveries()}
    assert [now[told[f"{status:04X}"]["id"]] for status in (0xA700, 0x0124, 0xA900)] == ["sent", "sent", "cancelled"]
