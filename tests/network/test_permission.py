"""Loopback until peers are listed, then exactly those."""

import pytest

from dicomnode.domain.routes import Peer
from dicomnode.network import Permissions


def peer(ae_title: str, host: str) -> Peer:
    return Peer(ae_title.lower(), ae_title, host, 104, frozenset({"store"}))


def resolver(host: str) -> list[str]:
    return {"ct.hospital": ["10.0.0.5"], "self.hospital": ["127.0.1.1"], "six.hospital": ["fe80::1%eth0"]}.get(
        host, [host] if host[0].isdigit() else []
    )


def test_without_peers_only_this_machine_is_admitted() -> None:
    permissions = Permissions([])
    assert all(permissions.admits(address) for address in ("127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"))
    assert not any(permissions.admits(address) for address in ("10.0.0.5", "::ffff:10.0.0.5", "fe80::1%eth0"))
    assert permissions.caller("ANY", "127.0.0.1") is not None
    assert permissions.caller("ANY", "10.0.0.5") is None


def test_with_peers_only_listed_pairs_are_admitted() -> None:
    permissions = Permissions([peer("CT", "ct.hospital"), peer("PACS", "10.0.0.9")], resolver=resolver)
    assert permissions.admits("10.0.0.5")
    assert permissions.admits("::ffff:10.0.0.9")
    assert not permissions.admits("127.0.0.1")
    assert permissions.caller("CT", "10.0.0.5") == peer("CT", "ct.hospital")
    assert permissions.caller(" CT ", "10.0.0.5") is not None
    assert permissions.caller("CT", "10.0.0.9") is None
    assert permissions.caller("ct", "10.0.0.5") is None


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_name_of_this_machine_means_all_its_loopback_addresses(address: str) -> None:
    assert Permissions([peer("CT", "self.hospital")], resolver=resolver).caller("CT", address)


def test_scopes_and_unknown_names_do_no_harm() -> None:
    permissions = Permissions([peer("SIX", "six.hospital"), peer("GONE", "gone.hospital")], resolver=resolver)
    assert permissions.caller("SIX", "fe80::1%eth1")
    assert permissions.caller("GONE", "10.0.0.5") is None


def test_a_peer_may_come_from_anywhere_if_the_settings_say_so() -> None:
    permissions = Permissions([peer("ROAMING", "*")])
    assert permissions.admits("203.0.113.7")
    assert permissions.caller("ROAMING", "203.0.113.7")
    assert permissions.caller("OTHER", "203.0.113.7") is None
