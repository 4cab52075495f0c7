"""How many images does a peer list of a series? C-FIND, Study Root (PS3.4 C.6.2)."""

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pynetdicom.association import Association
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from dicomnode.domain.errors import PeerUnreachable
from dicomnode.domain.routes import Peer
from dicomnode.domain.statuses import SUCCESS
from dicomnode.network.association import Timeouts, associate
from dicomnode.network.contexts import UNCOMPRESSED
from dicomnode.network.reactor import hold

_PENDING = frozenset({0xFF00, 0xFF01})  # PS3.4 C.4.1.1.4
_MODEL = StudyRootQueryRetrieveInformationModelFind


def count_instances(
    peer: Peer,
    our_ae_title: str,
    study_instance_uid: str,
    series_instance_uids: Sequence[str],
    *,
    timeouts: Timeouts = Timeouts(connect_s=5.0, dimse_s=10.0),  # noqa: B008 - frozen
) -> dict[str, int]:
    """Series → how many instances the peer lists of it; 0 for a series that it does not list. Raises PeerUnreachable.

    Number of Series Related Instances (0020,1209) is optional (PS3.4 C.3.4): where it is silent the instances are counted.
    """
    counts = {}
    with associate(peer, our_ae_title, [(_MODEL, UNCOMPRESSED)], timeouts=timeouts) as association:
        hold(association)
        for uid in series_instance_uids:
            asked = _identifier("SERIES", study_instance_uid, uid, "NumberOfSeriesRelatedInstances")
            numbers = [match.get("NumberOfSeriesRelatedInstances") for match in _matches(association, peer, asked)]
            told = next((int(number) for number in numbers if number not in (None, "")), None)
            if told is None and numbers:
                told = len(_matches(association, peer, _identifier("IMAGE", study_instance_uid, uid, "SOPInstanceUID")))
            counts[uid] = told or 0
    return counts


def _identifier(level: str, study: str, series: str, wanted: str) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    identifier.StudyInstanceUID, identifier.SeriesInstanceUID = study, series
    setattr(identifier, wanted, None if wanted.startswith("Number") else "")
    return identifier


def _matches(association: Association, peer: Peer, identifier: Dataset) -> list[Dataset]:
    found, status = [], None
    for response, match in association.send_c_find(identifier, _MODEL):
        status = int(response.Status) if "Status" in response else None
        if status in _PENDING and match is not None:
            found.append(match)
    if status != SUCCESS:
        said = "broke off" if status is None else f"answered with status 0x{status:04X}"
        raise PeerUnreachable(f"peer {peer.name!r} {said} when asked for a count", "look at the peer's own log")
    return found
