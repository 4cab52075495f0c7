"""STOW-RS to Orthanc's DICOMweb plugin, and QIDO-RS as proof."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pydicom
import pytest

from dicomnode.domain.results import ResultKind
from dicomnode.domain.routes import Destination
from dicomnode.domain.uids import derived_uid
from tests.delivery.outbox import PROFILE, QUICK, Outbox
from tests.peers.orthanc import Orthanc
from tests.peers.waiting import free_port

PLUGIN = {"Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"]}


def stow_destination(port: int, root: str = "/dicom-web", proof: str = "find") -> Destination:
    return Destination(
        name="web", kind="stow", profile=PROFILE, proof=proof, accept_demonstration=True, url=f"http://127.0.0.1:{port}{root}"
    )  # type: ignore[arg-type]  # fmt: skip


def test_a_jobs_results_reach_a_dicomweb_server_once_are_readable_and_proved(
    outbox: Outbox, orthanc: Callable[..., Orthanc]
) -> None:
    pacs = orthanc("pacs", settings=PLUGIN)
    results = outbox.finish_a_job("web", pixel_bytes=3_000_000)
    deliverer = outbox.deliverer(stow_destination(pacs.http_port))
    assert deliverer.run_once() == 3
    assert outbox.states() == ["sent"] * 3
    outbox.clock.advance(seconds=2)
    assert deliverer.prove_once() == 3
    assert outbox.states() == ["confirmed"] * 3
    assert {one["proof"] for one in outbox.deliveries()} == {"indexed: found by QIDO-RS"}
    assert pacs.arrivals() == [result.sop_instance_uid for result in results]
    for result in results:
        there = next(one for one in pacs.instances() if one.sop_instance_uid == result.sop_instance_uid)
        assert pacs.dataset(there) == pydicom.dcmread(outbox.store.absolute(result.path))


def test_a_dicomweb_server_that_is_down_is_waited_for_and_what_it_lost_is_sent_again(
    outbox: Outbox, orthanc: Callable[..., Orthanc]
) -> None:
    pacs = orthanc("pacs", settings=PLUGIN)
    pacs.stop()
    outbox.finish_a_job("web", kinds=[ResultKind.SC])
    deliverer = outbox.deliverer(stow_destination(pacs.http_port))
    deliverer.run_once()
    assert outbox.states() == ["waiting"]
    assert "does not answer" in outbox.deliveries()[0]["last_error"]
    pacs.start()
    outbox.work_until(deliverer, "confirmed")
    outbox.finish_a_job("web", kinds=[ResultKind.SC])
    deliverer = outbox.deliverer(stow_destination(pacs.http_port), policy=replace(QUICK, missing_after_s=1.0))
    deliverer.run_once()
    for instance in pacs.instances():
        pacs.delete(instance)
    outbox.clock.advance(seconds=3)
    deliverer.prove_once()
    assert outbox.states() == ["confirmed", "waiting"]
    outbox.clock.advance(minutes=5)
    outbox.work_until(deliverer, "confirmed", "confirmed")


class _Says(http.server.BaseHTTPRequestHandler):
    """A server that answers every STOW request alike; what PS3.18 lets servers say that Orthanc never says."""

    status, body = 200, b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def a_server_that_says(status: int, body: object) -> Iterator[int]:
    port = free_port()
    handler = type("Says", (_Says,), {"status": status, "body": json.dumps(body).encode() if body is not None else b"\xff<"})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield port
    server.shutdown()
    server.server_close()


def failed(reason: int) -> dict[str, object]:
    item = {"00081197": {"vr": "US", "Value": [reason]}}
    return {"00081198": {"vr": "SQ", "Value": [item]}}


def warned(reason: int) -> dict[str, object]:
    instance = {"vr": "UI", "Value": [derived_uid(["SC", derived_uid(["source", "1"])])]}
    item = {"00081196": {"vr": "US", "Value": [reason]}, "00081155": instance}
    return {"00081199": {"vr": "SQ", "Value": [item]}}


@pytest.mark.parametrize(
    ("status", "body", "state", "said"),
    [
        (200, {}, "sent", ""),
        (200, None, "sent", ""),
        (200, {"00081199": {"vr": "SQ"}}, "waiting", "names no stored instance"),
        (202, warned(0xB000), "sent", "delivered with a warning: STOW-RS gave B000"),
        (409, failed(0xA700), "waiting", "A700"),
        (202, failed(0xA700), "waiting", "A700"),
        (409, failed(0x0122), "rejected", "0122"),
        (409, failed(0xA900), "rejected", "A900"),
        (409, failed(0xC000), "waiting", "C000"),
        (415, {}, "rejected", "HTTP 415"),
        (503, {}, "waiting", "HTTP 503"),
        (403, {}, "waiting", "HTTP 403"),
        (500, None, "waiting", "HTTP 500"),
    ],
)
def test_each_answer_of_a_dicomweb_server_has_its_consequence(
    outbox: Outbox, status: int, body: object, state: str, said: str
) -> None:
    with a_server_that_says(status, body) as port:
        outbox.finish_a_job("web", kinds=[ResultKind.SC])
        outbox.deliverer(stow_destination(port, proof="status")).run_once()
        (delivery,) = outbox.deliveries()
        assert delivery["state"] == state
        assert said in delivery["last_error"]
