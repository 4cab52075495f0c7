"""What a sender and the node agree on: classes, transfer syntaxes in the configured order, our several AE titles."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydicom import dcmread

from dicomnode.domain.transfer_syntaxes import TRANSFER_SYNTAXES, preferred_first
from dicomnode.network import STORAGE_SOP_CLASSES, associate
from tests.peers.dcmtk import dcmsend
from tests.peers.node import Node, chest_route, destination, modality_peer
from tests.peers.waiting import wait_until
from tests.receiving.reception import Reception, context, local_peer
from tests.receiving.samples import CT, EBE, ELE, ILE, ct, store

JPEG_LS, JPEG_BASELINE, DEFLATED = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1.99"
PRIVATE_CLASS = "1.2.840.113619.4.30"  # GE's, as old consoles send it


def agreed(reception: Reception, *offered: str, sop_class: str = CT) -> str:
    """The transfer syntax that is chosen where one context offers these."""
    with reception.associated(context(sop_class, *offered)) as association:
        return str(association.accepted_contexts[0].transfer_syntax[0])


def test_lossless_is_chosen_before_uncompressed_and_that_before_lossy(reception: Reception) -> None:
    assert agreed(reception, ILE, ELE, JPEG_LS) == JPEG_LS
    assert agreed(reception, JPEG_BASELINE, ILE, ELE) == ELE
    assert agreed(reception, EBE, ILE) == ILE
    assert agreed(reception, EBE) == EBE


def test_what_settings_prefer_is_chosen_and_all_others_are_still_taken(make_reception: Callable[..., Reception]) -> None:
    reception = make_reception(transfer_syntaxes=[ILE, EBE])
    assert agreed(reception, JPEG_LS, ELE, ILE) == ILE
    assert agreed(reception, ELE, EBE) == EBE
    assert agreed(reception, JPEG_LS, ELE) == JPEG_LS
    assert {agreed(reception, syntax) for syntax in TRANSFER_SYNTAXES} == set(TRANSFER_SYNTAXES)


def test_the_order_names_every_transfer_syntax_once() -> None:
    assert preferred_first(()) == TRANSFER_SYNTAXES
    order = preferred_first((DEFLATED, ILE, DEFLATED))
    assert order[:2] == (DEFLATED, ILE)
    assert sorted(order) == sorted(TRANSFER_SYNTAXES)


def test_every_storage_class_of_the_standard_is_taken(reception: Reception) -> None:
    classes = sorted(STORAGE_SOP_CLASSES)
    for start in range(0, len(classes), 128):
        asked = classes[start : start + 128]
        with reception.associated(*(context(uid, ELE) for uid in asked)) as association:
            assert [str(one.abstract_syntax) for one in association.accepted_contexts] == asked


def node_of_two_titles(folder: Path) -> Node:
    """A node that is called AI_CHEST and AI_HEAD as well, with a route for each."""
    return Node(
        folder,
        peers=[modality_peer("CT_SCANNER"), modality_peer("PACS")],
        destinations=[destination("pacs")],
        routes=[
            chest_route(name="chest", match={"CalledAETitle": "AI_CHEST"}),
            chest_route(name="head", match={"CalledAETitle": ["ai_h*"]}),
            chest_route(name="ours", match={"CalledAETitle": "DICOMNODE", "Modality": "CT"}),
        ],
        settings={
            "dicom": {
                "also_called": ["AI_CHEST", "AI_HEAD"],
                "extra_sop_classes": [PRIVATE_CLASS],
                "transfer_syntaxes": ["ImplicitVRLittleEndian"],
            }
        },
    )


def test_each_called_ae_title_has_its_own_routes_and_settings_reach_the_listener(tmp_path: Path, test_data: Path) -> None:
    with_routes = node_of_two_titles(tmp_path / "node")
    sent = {
        "AI_CHEST": test_data / "ct_chest_gap_covid3",
        "AI_HEAD": test_data / "ct_head_ge_tilt",
        "DICOMNODE": test_data / "ct_abdomen_crlm1004",
    }
    with_routes.start("receive", "sweep")
    try:
        for called, folder in sent.items():
            done = dcmsend(with_routes.port, folder, calling="CT_SCANNER", called=called)
            assert done.ok, done.output[-2000:]
        for (called, folder), route in zip(sent.items(), ("chest", "head", "ours"), strict=True):
            study = str(dcmread(next(folder.iterdir()), stop_before_pixels=True).StudyInstanceUID)
            assert matched_routes(with_routes, study) == [route], called
        again = dcmsend(with_routes.port, sent["AI_CHEST"], calling="CT_SCANNER", called="AI_HEAD")
        assert again.ok, again.output[-2000:]
        study = str(dcmread(next(sent["AI_CHEST"].iterdir()), stop_before_pixels=True).StudyInstanceUID)
        both = lambda: matched_routes(with_routes, study) == ["chest", "head"]  # noqa: E731
        wait_until(both, timeout_s=60, every_s=0.5, what="the routes of both titles")
        peer, private = local_peer(with_routes.port), ct(SOPClassUID=PRIVATE_CLASS)
        with associate(peer, "CT_SCANNER", [context(CT, JPEG_LS, ELE, ILE), context(PRIVATE_CLASS, ELE)]) as association:
            first, second = association.accepted_contexts
            assert first.transfer_syntax == [ILE]
            assert store(association, private, context_index=association.accepted_contexts.index(second)).Status == 0
    finally:
        with_routes.stop()


def matched_routes(node: Node, study: str) -> list[str]:
    """The routes that match the study, once its series is complete."""

    def judged() -> list[dict[str, Any]]:
        (series,) = node.explain(study)["series"]
        return series["routes"] if series["state"] == "complete" else []

    routes = wait_until(judged, timeout_s=60, every_s=0.5, what="the series to be judged")
    return [route["route"] for route in routes if route["matched"]]
