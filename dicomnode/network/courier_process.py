"""`python -m dicomnode.network.courier_process`: the other end of a `Courier`. Orders come on stdin, a line of JSON each."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pynetdicom.association import Association

from dicomnode.domain.errors import CorruptInstance, PeerUnreachable
from dicomnode.domain.routes import Peer, PeerTls
from dicomnode.network.association import Timeouts, associate
from dicomnode.network.contexts import MOST_CONTEXTS, UNCOMPRESSED
from dicomnode.network.courier import on_the_way_s
from dicomnode.network.services import send_file

# Somebody waits for each of these and asks again if need be: a destination that is dead should be known soon.
_TIMEOUTS = Timeouts(connect_s=5.0, acse_s=5.0, dimse_s=30.0, network_s=30.0)
_NOT_TAKEN = 0x0122  # SOP class not supported (PS3.7 C.5.7)
_UNREADABLE = 0x0110


def main() -> int:
    """Associate, send what is ordered, release at the end of the orders."""
    order = json.loads(sys.stdin.readline())
    name, ae_title, host, port = order["peer"]
    peer = Peer(name, ae_title, host, port, frozenset(), _tls(order["tls"]))
    try:
        with associate(peer, order["ae_title"], contexts(order["kinds"]), timeouts=_TIMEOUTS) as association:
            _say({"peer": True})
            _send(association, (str(order["originator"][0]), int(order["originator"][1])))
    except PeerUnreachable as error:
        _say({"unreachable": error.what, "remedy": error.remedy})
        return 1
    return 0


def _send(association: Association, originator: tuple[str, int]) -> None:
    """Until the orders end, or the link. Raises PeerUnreachable."""
    for line in sys.stdin:
        if not association.is_established:
            raise PeerUnreachable("the link to the peer was lost", "look at the peer's own log")
        try:
            path = Path(json.loads(line)["path"])
            # pynetdicom counts from when the last piece is queued, which is before the first is sent.
            association.dimse_timeout = _TIMEOUTS.dimse_s + on_the_way_s(path.stat().st_size)
            status = send_file(association, path, originator=originator)
        except PeerUnreachable:  # no context fits; the others may
            status = _NOT_TAKEN
        except (CorruptInstance, OSError):
            status = _UNREADABLE
        _say({"status": status})


def contexts(kinds: Sequence[Sequence[str]]) -> list[tuple[str, tuple[str, ...]]]:
    """A context for each kind, those of uncompressed objects also in the other uncompressed syntax; as many as there can be."""
    wanted: list[tuple[str, tuple[str, ...]]] = [(sop_class, (syntax,)) for sop_class, syntax in kinds]
    wanted += [(sop_class, (other,)) for sop_class, syntax in kinds if syntax in UNCOMPRESSED for other in UNCOMPRESSED]
    return list(dict.fromkeys(wanted))[:MOST_CONTEXTS]


def _tls(order: tuple[Sequence[str | None], bool] | None) -> PeerTls | None:
    if order is None:
        return None
    files, pinned = order
    certificate, key, ca = (Path(path) if path else None for path in files)
    return PeerTls(certificate, key, ca, pinned)


def _say(word: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(word) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
