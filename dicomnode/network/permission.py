"""Who may talk to us: loopback until peers are listed, then exactly the listed pairs of AE title and address."""

import functools
import ipaddress
import socket
from collections.abc import Callable, Sequence

import structlog

from dicomnode.domain.routes import Peer

_log = structlog.get_logger("network")
_ANYWHERE = frozenset({"", "*"})
LOOPBACK = Peer("loopback", "*", "127.0.0.1", 0, frozenset({"store", "query", "retrieve"}))

type_resolver = Callable[[str], Sequence[str]]


def resolve(host: str) -> Sequence[str]:
    """The addresses of a host name; none if it cannot be resolved."""
    try:
        return sorted({str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)})
    except OSError:
        return ()


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address without scope, IPv4 where it is IPv4 written as IPv6."""
    found = ipaddress.ip_address(address.partition("%")[0])
    return getattr(found, "ipv4_mapped", None) or found


@functools.lru_cache(maxsize=4096)
def source_of(address: str) -> str:
    """Whom an address counts as where connections are counted: an IPv6 host may take any address of its /64 (RFC 6177)."""
    plain = _plain(address)
    return str(ipaddress.ip_network((plain, 64), strict=False)) if plain.version == 6 else str(plain)


class Permissions:
    """Decides on addresses before the first byte is read, on AE titles when they are known. Host names are resolved once."""

    def __init__(self, peers: Sequence[Peer], *, resolver: type_resolver = resolve) -> None:
        self._peers: list[tuple[Peer, frozenset[str] | None]] = []
        for peer in peers:
            if peer.host in _ANYWHERE:
                self._peers.append((peer, None))
                continue
            addresses = resolver(peer.host)
            if not addresses:
                _log.warning("the host of a peer cannot be resolved: nothing is accepted from it", peer=peer.name)
            self._peers.append((peer, frozenset(str(_plain(address)) for address in addresses)))

    def admits(self, address: str) -> bool:
        """Whether anything from this address is read at all."""
        if not self._peers:
            return _plain(address).is_loopback
        return any(self._comes_from(addresses, address) for _, addresses in self._peers)

    def caller(self, calling_ae_title: str, address: str) -> Peer | None:
        """The peer that this pair of AE title and address is; None for an unknown pair."""
        if not self._peers:
            return LOOPBACK if _plain(address).is_loopback else None
        for peer, addresses in self._peers:
            if peer.ae_title.strip() == calling_ae_title.strip() and self._comes_from(addresses, address):
                return peer
        return None

    @staticmethod
    def _comes_from(addresses: frozenset[str] | None, address: str) -> bool:
        if addresses is None:
            return True
        plain = _plain(address)
        # A machine's own name may resolve to 127.0.1.1 while its connections come from 127.0.0.1 or ::1.
        return str(plain) in addresses or (plain.is_loopback and any(_plain(one).is_loopback for one in addresses))
