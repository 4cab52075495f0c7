"""What we ask of peers: C-ECHO, C-STORE, C-FIND."""

import time
from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification

from dicomnode.domain.errors import CorruptInstance, PeerUnreachable
from dicomnode.domain.routes import Peer
from dicomnode.domain.statuses import SUCCESS
from dicomnode.network.association import Timeouts, associate
from dicomnode.network.contexts import UNCOMPRESSED, class_and_syntax
from dicomnode.network.reactor import hold

_PENDING = frozenset({0xFF00, 0xFF01})  # PS3.4 C.4.1.1.4


def _status(response: Dataset) -> int | None:
    """None where the link was lost: pynetdicom then gives an empty response."""
    return int(response.Status) if "Status" in response else None


def echo(peer: Peer, our_ae_title: str, *, timeouts: Timeouts = Timeouts(dimse_s=10.0)) -> float:  # noqa: B008 - frozen
    """Seconds from the first packet to the C-ECHO response. Raises PeerUnreachable, also for an answer other than success."""
    started = time.monotonic()
    with associate(peer, our_ae_title, [(Verification, UNCOMPRESSED)], timeouts=timeouts) as association:
        hold(association)
        status = _status(association.send_c_echo())
        elapsed = time.monotonic() - started
    if status != SUCCESS:
        said = "nothing" if status is None else f"status 0x{status:04X}"
        raise PeerUnreachable(f"peer {peer.name!r} answered C-ECHO with {said}", "look at the peer's own log")
    return elapsed


def send_file(association: Association, path: Path, *, originator: tuple[str, int] | None = None) -> int | None:
    """C-STORE one Part 10 file; its status, or None if the link was lost and the outcome is unknown (send the same UID again).

    originator: AE title and Message ID of the C-MOVE that wants it (PS3.7 9.1.1.1).

    The data set leaves as it is stored; only where the peer took another uncompressed syntax is it converted. Raises
    PeerUnreachable if no accepted context fits, CorruptInstance if the file cannot be read.
    """
    sop_class, syntax = class_and_syntax(path)
    accepted = {
        str(context.transfer_syntax[0]) for context in association.accepted_contexts if context.abstract_syntax == sop_class
    }
    if syntax not in accepted and not (syntax in UNCOMPRESSED and accepted & set(UNCOMPRESSED)):
        raise PeerUnreachable(
            f"the peer accepted no presentation context for {UID(sop_class).name} in {UID(syntax).name}",
            "let the peer accept that SOP class and transfer syntax",
        )
    hold(association)
    try:
        ae_title, message_id = originator or (None, None)
        sent = path if syntax in accepted else dcmread(path)
        return _status(association.send_c_store(sent, originator_aet=ae_title, originator_id=message_id))
    except RuntimeError:  # the association ended before we could send
        return None
    except (AttributeError, ValueError, OSError) as error:
        raise CorruptInstance(
            f"{path.name} cannot be read for sending ({type(error).__name__})", "run dicomnode fsck"
        ) from error


def find_instance(
    peer: Peer,
    our_ae_title: str,
    study_instance_uid: str,
    series_instance_uid: str,
    sop_instance_uid: str,
    *,
    timeouts: Timeouts = Timeouts(dimse_s=30.0),  # noqa: B008 - frozen
) -> bool:
    """Whether the peer lists this instance (C-FIND, Study Root, IMAGE level: PS3.4 C.6.2). Raises PeerUnreachable."""
    asked = (study_instance_uid, series_instance_uid, sop_instance_uid)
    return sop_instance_uid in find_instances(peer, our_ae_title, [asked], timeouts=timeouts)


def find_instances(
    peer: Peer,
    our_ae_title: str,
    instances: Sequence[tuple[str, str, str]],
    *,
    timeouts: Timeouts = Timeouts(dimse_s=30.0),  # noqa: B008 - frozen
) -> set[str]:
    """The SOP Instance UIDs of those of these (study, series, instance) that the peer lists; one association for all.

    Each is asked for by itself: not every archive takes a list of UIDs at the IMAGE level. Raises PeerUnreachable.
    """
    model = StudyRootQueryRetrieveInformationModelFind
    with associate(peer, our_ae_title, [(model, UNCOMPRESSED)], timeouts=timeouts) as association:
        return {one[2] for one in instances if _lists(association, peer, *one)}


def _lists(association: Association, peer: Peer, study: str, series: str, instance: str) -> bool:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "IMAGE"
    identifier.StudyInstanceUID = study
    identifier.SeriesInstanceUID = series
    identifier.SOPInstanceUID = instance
    found, status = False, None
    hold(association)
    for response, match in association.send_c_find(identifier, StudyRootQueryRetrieveInformationModelFind):
        status = _status(response)
        if status in _PENDING and match is not None:
            found |= match.get("SOPInstanceUID", "") == instance
    if status != SUCCESS:
        said = "broke off" if status is None else f"answered with status 0x{status:04X}"
        raise PeerUnreachable(f"peer {peer.name!r} {said} when asked for an instance", "look at the peer's own log")
    return found
