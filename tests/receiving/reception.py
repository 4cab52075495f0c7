"""A receiving node in this process: real store, real registry on SQLite, real listener."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.uid import UID

from dicomnode.domain.routes import Peer
from dicomnode.network import associate, send_file, store_contexts_for
from dicomnode.receiving import InstanceLedger, Receiver
from dicomnode.registry import KnownInstance, Registry
from dicomnode.storage import Store, data_set_offset


def local_peer(port: int = 104, *, ae_title: str = "DICOMNODE", name: str = "us", may: Sequence[str] = ("store",)) -> Peer:
    return Peer(name, ae_title, "127.0.0.1", port, frozenset(may))


@dataclass
class Reception:
    """`with reception:` starts the listener on a free port of the loopback."""

    root: Path
    options: dict[str, Any] = field(default_factory=dict)
    reserve_bytes: int = 0

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.store = Store(self.root, reserve_bytes=self.reserve_bytes)
        self.registry = Registry(f"sqlite:///{self.root / 'dicomnode.db'}")
        self.registry.prepare()
        self.ledger: InstanceLedger = self.registry
        self.receiver: Receiver | None = None

    def start(self) -> "Reception":
        self.receiver = Receiver(self.store, self.ledger, **{"ae_title": "DICOMNODE", "port": 0, **self.options})
        self.receiver.start()
        return self

    def stop(self) -> None:
        if self.receiver is not None:
            self.receiver.stop(drain_s=5)
        self.registry.close()

    __enter__ = start

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        assert self.receiver is not None
        return self.receiver.port

    @contextlib.contextmanager
    def associated(
        self, *contexts: tuple[str, Sequence[str]], calling: str = "MODALITY", called: str = "DICOMNODE"
    ) -> Iterator[Any]:
        with associate(local_peer(self.port, ae_title=called), calling, contexts) as association:
            yield association

    def send(self, *paths: Path, calling: str = "MODALITY") -> list[int | None]:
        """C-STORE files as they are; their statuses."""
        with self.associated(*store_contexts_for(paths), calling=calling) as association:
            return [send_file(association, path) for path in paths]

    def known(self, sop_instance_uid: str) -> KnownInstance:
        found = self.registry.instance(sop_instance_uid)
        assert found is not None, "the registry does not know the instance"
        return found

    def kept_data_set(self, sop_instance_uid: str) -> bytes:
        """The data set as it lies on disk."""
        return data_set_of(self.store.absolute(self.known(sop_instance_uid).path))

    def files(self, below: str = "instances") -> list[Path]:
        """Without those that the store has made ahead."""
        return sorted(path for path in (self.root / below).rglob("*") if path.is_file() and path.stat().st_size)


def data_set_of(path: Path) -> bytes:
    """The bytes behind the File Meta Information."""
    return path.read_bytes()[data_set_offset(path) :]


def context(sop_class: str, *syntaxes: str) -> tuple[str, tuple[str, ...]]:
    return UID(sop_class), syntaxes
