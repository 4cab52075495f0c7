"""Who sends: the load generator, or DCMTK's storescu with Nagle's algorithm on."""

import json
import os
import re
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydicom.uid import UID

from dicomnode.bench import load
from dicomnode.bench.objects import COUNTER_DIGITS, SYNTAX, SentObject
from dicomnode.bench.processes import MeasurementFailed

_CALLING_AE = "BENCH"
_LONGEST_RUN_S = 600.0


@dataclass(frozen=True, slots=True)
class Sent:
    """What one run took. `ms_per_image` counts everything between the first connection and the last release.

    median_image_ms: from an image's first byte to its answer; None where the sender cannot tell.
    """

    ms_per_image: float
    median_image_ms: float | None
    announced_pdu: int | None


def generated(
    sent: SentObject, folder: Path, port: int, called_ae: str, *, images: int, associations: int, one_each: bool, bare: bool
) -> Sent:
    """Sends by the load generator. Raises MeasurementFailed unless every image was answered 0x0000."""
    head_file = folder / "head"
    head_file.write_bytes(sent.head)
    job = load.Job(
        port=port,
        associate_rq=associate_rq(sent.sop_class, called_ae).hex() if not bare else "",
        command_set=c_store_rq(sent.sop_class, sent.uid).hex(),
        head_file=str(head_file),
        uid=sent.uid,
        counter_digits=COUNTER_DIGITS,
        filler_bytes=sent.filler_bytes,
        images=images,
        associations=associations,
        one_each=one_each,
        bare=bare,
    )
    done = subprocess.run(
        [sys.executable, "-I", str(load.__file__)],
        input=json.dumps(asdict(job)),
        capture_output=True,
        text=True,
        check=False,
        timeout=_LONGEST_RUN_S,
    )
    if done.returncode:
        raise MeasurementFailed(f"the load generator failed: {done.stderr.strip().splitlines()[-1:]}", "see the receiver's log")
    outcome: dict[str, Any] = json.loads(done.stdout)
    if outcome["rejected"]:
        raise MeasurementFailed(
            f"it rejected {outcome['rejected']} of {associations} associations", "leave it out of this case"
        )
    if outcome["statuses"] != {"0000": images}:
        told = ", ".join(
            [*(f"{count} × 0x{status}" for status, count in outcome["statuses"].items()), *outcome["failures"][:2]]
        )
        raise MeasurementFailed(f"not all of {images} images were answered 0x0000: {told}", "see the receiver's log")
    return Sent(outcome["seconds"] / images * 1000, statistics.median(outcome["images_ms"]), outcome["announced_pdu"])


def nagled(
    sent: SentObject, folder: Path, port: int, called_ae: str, *, images: int, prefix: Sequence[str], storescu: str
) -> Sent:
    """Sends by DCMTK's storescu as it is installed: Nagle's algorithm on. Its own start counts with the images."""
    file = sent.saved(folder / "image.dcm")
    command = [storescu, "-v", "-aet", _CALLING_AE, "-aec", called_ae, "-xe", "--invent-instance", "--repeat", str(images)]
    environment = {key: value for key, value in os.environ.items() if key != "TCP_NODELAY"}
    began = time.perf_counter()
    done = subprocess.run(
        [*prefix, *command, "127.0.0.1", str(port), str(file)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=_LONGEST_RUN_S,
    )
    seconds = time.perf_counter() - began
    succeeded = len(re.findall(r"Received Store Response \(Success\)", done.stdout + done.stderr))
    if done.returncode or succeeded != images:
        raise MeasurementFailed(f"storescu got Success for {succeeded} of {images} images", "see the receiver's log")
    return Sent(seconds / images * 1000, None, None)


def associate_rq(sop_class: str, called_ae: str) -> bytes:
    """An A-ASSOCIATE-RQ (PS3.8 9.3.2) with one context: this class in Explicit VR Little Endian."""
    from pynetdicom import build_context
    from pynetdicom.pdu import A_ASSOCIATE_RQ
    from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification

    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, implementation.implementation_class_uid = load.LONGEST_PDU, UID("1.2.3.4")
    context = build_context(sop_class, [SYNTAX])
    context.context_id = 1
    asked = A_ASSOCIATE()
    asked.application_context_name = UID("1.2.840.10008.3.1.1.1")
    asked.calling_ae_title, asked.called_ae_title = _CALLING_AE, called_ae
    asked.user_information = [length, implementation]
    asked.presentation_context_definition_list = [context]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(asked)
    return bytes(pdu.encode())


def c_store_rq(sop_class: str, sop_instance: str) -> bytes:
    """A command set (PS3.7 9.3.1.1) with message ID 1."""

    def element(number: int, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        return struct.pack("<HHL", 0, number, len(value)) + value

    body = b"".join(
        (
            element(0x0002, sop_class.encode()),
            element(0x0100, struct.pack("<H", 0x0001)),
            element(0x0110, struct.pack("<H", 1)),
            element(0x0700, struct.pack("<H", 0)),
            element(0x0800, struct.pack("<H", 1)),
            element(0x1000, sop_instance.encode()),
        )
    )
    return element(0x0000, struct.pack("<L", len(body))) + body
