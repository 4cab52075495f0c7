"""The small PACS of the demo: keeps what it gets as files, answers C-ECHO and C-FIND at image level."""

import threading
from pathlib import Path
from typing import Any, Self

from pydicom.dataset import Dataset
from pynetdicom import AE, StoragePresentationContexts, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification

AE_TITLE = "DEMOPACS"
_UNIQUE_KEYS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")  # PS3.4 C.6.2.1


class SmallPacs:
    """An SCP on a free loopback port for as long as the block lasts; files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._lock = threading.Lock()
        self._held: dict[str, Dataset] = {}
        self._server: Any = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        entity = AE(AE_TITLE)
        entity.supported_contexts = StoragePresentationContexts
        entity.add_supported_context(Verification)
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_C_FIND, self._find)]
        self._server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = self._server.server_address[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()

    def files(self) -> list[Path]:
        """What arrived, by name."""
        with self._lock:
            return sorted(self.folder.glob("*.dcm"))

    def _store(self, event: Any) -> int:
        received = event.dataset
        received.file_meta = event.file_meta
        name = f"{received.Modality}-{received.SOPInstanceUID[-12:]}.dcm"
        with self._lock:
            received.save_as(self.folder / name, enforce_file_format=True)
            keys = Dataset()
            for keyword in _UNIQUE_KEYS:
                setattr(keys, keyword, received[keyword].value)
            self._held[str(received.SOPInstanceUID)] = keys
        return 0x0000

    def _find(self, event: Any) -> Any:
        wanted = str(event.identifier.get("SOPInstanceUID", ""))
        with self._lock:
            found = [keys for uid, keys in self._held.items() if not wanted or uid == wanted]
        for keys in found:
            answer = Dataset()
            answer.update(keys)
            answer.QueryRetrieveLevel = "IMAGE"
            yield 0xFF00, answer
