"""sd_notify(3) without a library: datagrams to the socket that the service manager names."""

import os
import socket


def notify(*assignments: str) -> None:
    """Tell the service manager, e.g. "READY=1"; without one, nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        # A leading "@" means Linux's abstract namespace, which the kernel spells with a NUL.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto("\n".join(assignments).encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)


def watchdog_interval_s() -> float | None:
    """How often the service manager wants to hear WATCHDOG=1 at most: half its limit. None: it does not watch."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    watched = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 2e6 if microseconds.isdecimal() and watched else None
