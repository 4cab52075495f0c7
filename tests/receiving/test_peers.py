"""Who may talk to the node."""

import socket
from collections.abc import Callable
from contextlib import closing

import pytest

from dicomnode.domain.errors import PeerUnreachable
from dicomnode.domain.routes import Peer
from dicomnode.network import echo
from tests.peers.dcmtk import echoscu
from tests.receiving.reception import Reception, context, local_peer
from tests.receiving.samples import CT, ELE, ct, store

SCANNER = Peer("scanner", "CT_SCANNER", "localhost", 104, frozenset({"store"}))
VIEWER = Peer("viewer", "VIEWER", "127.0.0.1", 104, frozenset({"query"}))


def test_without_listed_peers_whoever_is_on_this_machine_may_send(reception: Reception) -> None:
    image = ct()
    with reception.associated(context(CT, ELE), calling="SOMEBODY") as association:
        assert store(association, image).Status == 0
    assert reception.known(image.SOPInstanceUID)


def test_an_unknown_calling_ae_title_is_rejected_with_the_reason(make_reception: Callable[..., Reception]) -> None:
    reception = make_reception(peers=[SCANNER])
    assert echoscu(reception.port, calling="CT_SCANNER").ok
    rejected = echoscu(reception.port, calling="INTRUDER")
    assert not rejected.ok
    assert "Calling AE Title Not Recognized" in rejected.output


def test_a_wrong_called_ae_title_is_rejected_with_the_reason(make_reception: Callable[..., Reception]) -> None:
    reception = make_reception(also_called=["AI_CHEST"])
    assert echoscu(reception.port, called="AI_CHEST").ok
    rejected = echoscu(reception.port, called="OTHER_NODE")
    assert not rejected.ok
    assert "Called AE Title Not Recognized" in rejected.output


def test_an_unknown_address_is_closed_before_anything_is_read(make_reception: Callable[..., Reception]) -> None:
    reception = make_reception(peers=[Peer("far", "CT_SCANNER", "192.0.2.7", 104, frozenset({"store"}))])
    with closing(socket.create_connection(("127.0.0.1", reception.port), timeout=5)) as connection:
        assert connection.recv(1) == b""
    with pytest.raises(PeerUnreachable):
        echo(local_peer(reception.port), "CT_SCANNER")


def test_a_peer_that_may_not_store_gets_c_echo_only(make_reception: Callable[..., Reception]) -> None:
    reception = make_reception(peers=[SCANNER, VIEWER])
    assert echo(local_peer(reception.port), "VIEWER") < 5
    with (
        pytest.raises(PeerUnreachable, match="accepted no presentation context"),
        reception.associated(context(CT, ELE), calling="VIEWER"),
    ):
        pass


def test_a_peers_host_name_is_resolved_once(make_reception: Callable[..., Reception]) -> None:
    reception = make_reception(peers=[SCANNER])  # localhost may mean ::1 or 127.0.0.1
    with reception.associated(context(CT, ELE), calling="CT_SCANNER") as association:
        assert store(association, ct()).Status == 0
