"""A destination that takes no objects of a class: what goes in their place, and what must not go alone."""

from dataclasses import replace

import pytest

from dicomnode.domain.results import ResultObject
from dicomnode.domain.states import DeliveryEvent, JobEvent
from dicomnode.registry import ClaimedDelivery, Registry
from tests.registry.samples import Spool, add_series, queue_job
from tests.registry.test_outbox import claim, outbox

LABELMAP, BINARY = "1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.66.4"
COMPREHENSIVE_3D, COMPREHENSIVE = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.33"


def states(registry: Registry) -> dict[str, str]:
    """State of each delivery by its SOP Instance UID."""
    (series,) = registry.explain("S1")["series"]  # type: ignore[misc]
    return {one["sop_instance_uid"]: one["state"] for one in series["deliveries"]}


def refuse(registry: Registry, delivery: ClaimedDelivery, profile: str = "viewer", status: int | None = None) -> None:
    registry.finish_delivery(delivery, DeliveryEvent.REJECTED, status=status, error="class refused", refused_by=profile)


@pytest.mark.parametrize("status", [None, 0x0122])
def test_where_no_seg_is_taken_the_captures_go_alone_and_the_report_that_names_it_stays(
    registry: Registry, status: int | None
) -> None:
    outbox(registry)
    refuse(registry, claim(registry), status=status)
    sc = claim(registry)
    assert sc.result.kind == "SC"
    registry.finish_delivery(sc, DeliveryEvent.ACCEPTED, status=0)
    assert registry.claim_delivery("d", "pacs", 60) is None
    assert sorted(states(registry).values()) == ["cancelled", "rejected", "sent"]


def test_an_operator_who_sends_the_refused_seg_again_sends_its_report_too(registry: Registry) -> None:
    outbox(registry)
    refuse(registry, claim(registry))
    assert registry.retry("D1") == ["D1", "D2"]
    seg = claim(registry)
    assert seg.result.kind == "SEG"
    assert registry.claim_delivery("d", "pacs", 60) is None
    registry.finish_delivery(seg, DeliveryEvent.ACCEPTED, status=0)
    assert [claim(registry).result.kind, claim(registry).result.kind] == ["SR", "SC"]


def with_fallbacks(registry: Registry) -> dict[str, ResultObject]:
    """A job for a viewer that may want a binary SEG for a label map, and a plain report for a 3D one."""
    add_series(registry, 2)
    queue_job(registry)
    job = registry.claim_job("w", 60)
    assert job is not None
    seg, sr, sc = Spool("a").objects(job, ("SEG", "SR", "SC"))
    plain, other_seg, other_sr = (one for one in Spool("b").objects(job, ("SR", "SEG", "SR")))
    objects = {
        "seg": replace(seg, sop_class_uid=LABELMAP, profiles=("viewer",), order=0),
        "sr": replace(sr, sop_class_uid=COMPREHENSIVE_3D, profiles=("viewer",), order=2),
        "sc": replace(sc, profiles=("viewer",), order=5),
        "plain sr": _instead(plain, COMPREHENSIVE, COMPREHENSIVE_3D, sr, order=3),
        "other seg": _instead(other_seg, BINARY, LABELMAP, seg, order=1),
        "other sr": _instead(other_sr, COMPREHENSIVE_3D, LABELMAP, sr, order=4),
    }
    registry.finish_job(
        job,
        JobEvent.FINISHED,
        results=tuple(objects.values()),
        destinations=["pacs"],
        profile_by_destination={"pacs": "viewer"},
    )
    return objects


def _instead(one: ResultObject, sop_class: str, refused: str, of: ResultObject, *, order: int) -> ResultObject:
    uid = f"{one.sop_instance_uid}.{order}"
    return replace(
        one, sop_class_uid=sop_class, sop_instance_uid=uid, profiles=(), fallback_profiles=("viewer",),
        replaces=(of.sop_instance_uid,), when_refused=refused, order=order,
    )  # fmt: skip


def test_a_refused_form_is_replaced_by_the_other_with_all_that_names_it(registry: Registry) -> None:
    objects = with_fallbacks(registry)
    assert set(states(registry)) == {objects[name].sop_instance_uid for name in ("seg", "sr", "sc")}
    refuse(registry, claim(registry))
    sent = []
    while (delivery := registry.claim_delivery("d", "pacs", 60)) is not None:
        sent.append(delivery.result.sop_instance_uid)
        registry.finish_delivery(delivery, DeliveryEvent.ACCEPTED, status=0)
    assert sent == [objects[name].sop_instance_uid for name in ("other seg", "other sr", "sc")]
    after = states(registry)
    assert {after[objects[name].sop_instance_uid] for name in ("seg", "sr")} == {"cancelled"}


def test_a_refused_report_is_replaced_by_the_one_that_names_the_seg_that_went(registry: Registry) -> None:
    objects = with_fallbacks(registry)
    registry.finish_delivery(claim(registry), DeliveryEvent.ACCEPTED, status=0)
    refuse(registry, claim(registry), status=0x0122)
    after = states(registry)
    assert after[objects["plain sr"].sop_instance_uid] == "waiting"
    assert objects["other sr"].sop_instance_uid not in after
    assert after[objects["sr"].sop_instance_uid] == "cancelled"


def test_another_profile_gets_no_replacement(registry: Registry) -> None:
    objects = with_fallbacks(registry)
    refuse(registry, claim(registry), profile="archive")
    assert set(states(registry)) == {objects[name].sop_instance_uid for name in ("seg", "sr", "sc")}
