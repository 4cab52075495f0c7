"""A phantom goes in on a schedule, through the listener like anybody's; its result must come out, into a folder of the node."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from dicomnode.domain.canary import CANARY, CANARY_AE_TITLE
from dicomnode.domain.errors import DicomNodeError
from dicomnode.domain.profiles import Profile
from dicomnode.domain.routes import Destination, Peer, PeerTls, Route
from dicomnode.domain.statuses import SUCCESS
from dicomnode.domain.uids import PHANTOM_MARK, derived_uid
from dicomnode.registry import Registry
from dicomnode.registry.canary import ANSWERED, SENT, CanaryAnswer
from dicomnode.roles.retention import status_is_proof
from dicomnode.settings import Settings

PATIENT_ID = "CANARY"
_SEED = 42  # the same patient each time: what comes out can be compared
_EVERYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, not listened on

_DRAWN_WITHIN_S = 300.0
_WRITE = "import sys; from dicomnode.roles.canary import write_phantom; write_phantom(*sys.argv[1:])"

_log = structlog.get_logger()


def folder(settings: Settings) -> Path:
    """Where its results come out."""
    return settings.data_dir / CANARY


def destination(settings: Settings, profiles: Mapping[str, Profile]) -> Destination:
    """The folder as a destination."""
    return Destination(
        name=CANARY,
        kind="folder",
        profile=profiles["archive"],
        proof="status",
        accept_demonstration=True,
        path=folder(settings),
    )


def route(settings: Settings) -> Route:
    """Its own route: no other sees it, and this one sees nothing else."""
    return Route(
        name=CANARY,
        match={},
        pipeline=settings.canary.pipeline,
        speed="exact",
        select="best",
        send_to=(CANARY, *settings.canary.send_to),
        results=("SEG", "SR", "SC"),
        quiet_s=5.0,
        max_wait_s=300.0,
        priority=-1,  # patients first
        canary=True,
    )


def sender(settings: Settings) -> Peer:
    """Our listener as the canary calls it, and the canary as the listener knows it."""
    dicom = settings.dicom
    host = "127.0.0.1" if dicom.host in _EVERYWHERE else dicom.host
    tls = None
    if dicom.tls is not None:  # it meets no other certificate than the listener's, which names the host that others call
        own = settings.absolute(dicom.tls.certificate)
        certificate = settings.canary.certificate or dicom.tls.certificate
        key = settings.canary.key or dicom.tls.key
        tls = PeerTls(settings.absolute(certificate), settings.absolute(key), own, pinned=True)
    return Peer(CANARY, settings.node.ae_title, host, dicom.port, frozenset({"store"}), tls)


def permitted(settings: Settings) -> tuple[Peer, ...]:
    """For the listener: the canary from this machine. With no peers listed the loopback is open as it is."""
    if not settings.canary.every_h or not settings.peers:
        return ()
    one = sender(settings)
    return (Peer(CANARY, CANARY_AE_TITLE, one.host, 0, frozenset({"store"})),)


class Canary:
    """`tick` as often as one likes: sends when one is due, looks for the last one's results, tidies up after the earlier."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings, self._registry = settings, registry
        folder(settings).mkdir(mode=0o750, exist_ok=True)

    def tick(self, now: datetime) -> None:
        """One look. A canary that does not come out is an alarm each time until one does."""
        every = timedelta(hours=self._settings.canary.every_h)
        sent_at, answered_at = self._registry.keeping.canary_marks()
        if sent_at is not None and (answered_at is None or answered_at < sent_at):
            self._look(sent_at, now)
        if sent_at is None or now - sent_at >= every:
            self._registry.keeping.remember_canary(SENT, now)
            self._tidy()
            try:
                self._send(now)
            except (DicomNodeError, OSError, subprocess.SubprocessError) as error:
                _log.error("the canary could not be sent", exc_info=error)

    def _look(self, sent_at: datetime, now: datetime) -> None:
        answer = self._registry.keeping.canary_answer(study_uid(sent_at))
        why = "it was never received" if answer is None else answer.why or self._spoiled(answer)
        if answer is not None and answer.at is not None and not why:
            self._registry.keeping.remember_canary(ANSWERED, max(answer.at, sent_at))
            _log.info("the canary came out", study=answer.study_key, elapsed_s=round((answer.at - sent_at).total_seconds(), 1))
        elif now - sent_at > timedelta(minutes=self._settings.canary.within_min):
            _log.error("the canary did not come out in time", study=None if answer is None else answer.study_key)

    def _spoiled(self, answer: CanaryAnswer) -> str:
        from dicomnode.delivery.folder import sha256_of  # brings pynetdicom, which status and its like need not load

        try:
            wrong = [path for path, sha256 in answer.files if sha256_of(folder(self._settings) / path) != sha256]
        except OSError:
            return "a file of its results is not there"
        return "a file of its results has other bytes" if wrong else ""

    def _send(self, now: datetime) -> None:
        from dicomnode import network

        with tempfile.TemporaryDirectory(prefix="canary-", dir=self._settings.data_dir / "run") as work:
            # A process of its own: what draws a phantom (scipy) must not stay in this role's memory.
            subprocess.run([sys.executable, "-c", _WRITE, work, study_uid(now)], check=True, timeout=_DRAWN_WITHIN_S)
            paths = sorted(Path(work).glob("*.dcm"))
            contexts = network.store_contexts_for(paths)
            with network.associate(sender(self._settings), CANARY_AE_TITLE, contexts) as association:
                statuses = {network.send_file(association, path) for path in paths}
        if statuses != {SUCCESS}:
            _log.error("the canary was not taken", status=next(f"{one or 0:04X}" for one in statuses if one != SUCCESS))

    def _tidy(self) -> None:
        """What the earlier ones left: images and results by retention's own rules, files of the folder here."""
        self._registry.keeping.purge_canaries(status_is_proof(self._settings))
        for left in folder(self._settings).iterdir():
            with suppress(OSError):
                shutil.rmtree(left)


def write_phantom(folder: str, study_instance_uid: str) -> None:
    """The phantom's files."""
    from dicomnode.phantom import PatientText, small_thorax, write_study

    text = PatientText(patient_name="CANARY^DICOMNODE", patient_id=PATIENT_ID, study_description="CANARY: NO PATIENT")
    write_study(small_thorax(_SEED), Path(folder), patient=text, study_uid=study_instance_uid)


def study_uid(at: datetime) -> str:
    """Of the canary that is sent then."""
    return derived_uid([CANARY, at.isoformat()], mark=PHANTOM_MARK)
