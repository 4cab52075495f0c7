"""A real Orthanc on the loopback: our PACS for tests."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pydicom

from tests.peers.processes import PeerProcess, loopback_shim, tool
from tests.peers.waiting import free_port, wait_until


@dataclass(frozen=True)
class Modality:
    """An application entity that Orthanc knows: whom it may send to, whose C-FIND, C-MOVE and commitment it answers."""

    ae_title: str
    port: int
    host: str = "127.0.0.1"

    def as_setting(self) -> dict[str, Any]:
        """One value of Orthanc's DicomModalities."""
        return {"AET": self.ae_title, "Host": self.host, "Port": self.port, "AllowStorageCommitment": True}


@dataclass(frozen=True)
class StoredInstance:
    """One instance in the PACS. `orthanc_id` is Orthanc's own key for its REST API."""

    orthanc_id: str
    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    modality: str


class Orthanc:
    """A PACS with its storage in `folder`; `stop` and `start` again keep what it has.

    `modalities`: name → who may query it and where it sends. `settings` overrides keys of Orthanc's own configuration file.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "ORTHANC",
        dicom_port: int | None = None,
        http_port: int | None = None,
        modalities: Mapping[str, Modality] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.ae_title = ae_title
        self.dicom_port = dicom_port or free_port()
        self.http_port = http_port or free_port()
        self.modalities = dict(modalities or {})
        self._settings = dict(settings or {})
        self._process: PeerProcess | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- its life

    def start(self) -> None:
        """Starts it and returns once it answers on both ports."""
        configuration = self.folder / "orthanc.json"
        configuration.write_text(json.dumps(self._configuration(), indent=1))
        self._process = PeerProcess(
            [tool("Orthanc", "orthanc"), "--verbose", configuration],
            self.folder / "orthanc.log",
            environment={"LD_PRELOAD": str(loopback_shim())},
            working_folder=self.folder,
        )
        wait_until(self._answers, timeout_s=30, every_s=0.1, what=f"Orthanc to answer; its log: {self.folder / 'orthanc.log'}")

    def stop(self) -> None:
        """Ends it; the storage stays."""
        if self._process is not None:
            self._process.terminate()
            self._process = None

    def kill(self) -> None:
        """Ends it without a goodbye: open associations are cut."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def restart(self) -> None:
        """The same PACS, ports and storage again."""
        self.stop()
        self.start()

    @property
    def pid(self) -> int:
        """The running process."""
        if self._process is None:
            raise RuntimeError("Orthanc is not running")
        return self._process.pid

    def output(self) -> str:
        """Its log, for counting what arrived on the wire."""
        return (self.folder / "orthanc.log").read_text(errors="replace")

    def _answers(self) -> bool:
        if self._process is not None and not self._process.running:
            raise RuntimeError(f"Orthanc ended at once:\n{self.output()[-2000:]}")
        try:
            return bool(self.rest("/system"))
        except (URLError, OSError):
            return False

    def _configuration(self) -> dict[str, Any]:
        return {
            "Name": "test PACS",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": [],
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAet": self.ae_title,
            "DicomPort": self.dicom_port,
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowMove": True,
            "DicomModalities": {name: modality.as_setting() for name, modality in self.modalities.items()},
            "StableAge": 1,
            "UnknownSopClassAccepted": True,
            "SynchronousCMove": True,
            "OverwriteInstances": False,
            "DicomScpTimeout": 10,
            "DicomScuTimeout": 10,
            **self._settings,
        }

    # --- its REST API

    def rest(self, path: str, body: object = None, *, method: str | None = None) -> Any:
        """The decoded JSON answer of one REST call; GET without a body, else POST."""
        answer = self._call(path, body, method)
        return json.loads(answer) if answer.strip() else None

    def _call(self, path: str, body: object, method: str | None, timeout_s: float = 60.0) -> bytes:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = Request(f"http://127.0.0.1:{self.http_port}{path}", data=data, method=method)
        try:
            with urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
                content: bytes = answer.read()
                return content
        except HTTPError as error:
            raise RuntimeError(f"Orthanc answered {error.code} to {path}: {error.read()[:500]!r}") from error

    def instances(self) -> list[StoredInstance]:
        """Everything it holds, in the order of SOP Instance UIDs."""
        studies = {study["ID"]: study["MainDicomTags"]["StudyInstanceUID"] for study in self.rest("/studies?expand")}
        series = {one["ID"]: one for one in self.rest("/series?expand")}
        found = [
            StoredInstance(
                orthanc_id=instance["ID"],
                sop_instance_uid=instance["MainDicomTags"]["SOPInstanceUID"],
                sop_class_uid=self._call(f"/instances/{instance['ID']}/metadata/SopClassUid", None, None).decode(),
                series_instance_uid=series[instance["ParentSeries"]]["MainDicomTags"]["SeriesInstanceUID"],
                study_instance_uid=studies[series[instance["ParentSeries"]]["ParentStudy"]],
                modality=series[instance["ParentSeries"]]["MainDicomTags"].get("Modality", ""),
            )
            for instance in self.rest("/instances?expand")
            if instance["ParentSeries"] in series
        ]
        return sorted(found, key=lambda instance: instance.sop_instance_uid)

    def instance_count(self) -> int:
        """How many instances it holds; cheap enough to wait on."""
        count: int = self.rest("/statistics")["CountInstances"]
        return count

    def arrivals(self) -> list[str]:
        """SOP Instance UIDs in the order in which it indexed them; each once, deleted ones left out."""
        of_id = {instance.orthanc_id: instance.sop_instance_uid for instance in self.instances()}
        changes = self.rest("/changes?limit=100000")["Changes"]
        return [of_id[change["ID"]] for change in changes if change["ChangeType"] == "NewInstance" and change["ID"] in of_id]

    def study_uids(self) -> list[str]:
        """Study Instance UIDs that it holds, sorted."""
        return sorted(study["MainDicomTags"]["StudyInstanceUID"] for study in self.rest("/studies?expand"))

    def download(self, instance: StoredInstance) -> bytes:
        """The whole Part 10 file as Orthanc gives it back."""
        return self._call(f"/instances/{instance.orthanc_id}/file", None, None)

    def dataset(self, instance: StoredInstance) -> pydicom.Dataset:
        """The downloaded instance, parsed."""
        return pydicom.dcmread(io.BytesIO(self.download(instance)))

    def save_all(self, folder: Path) -> list[Path]:
        """Downloads everything into `folder`, one file an instance, named by SOP Instance UID."""
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for instance in self.instances():
            path = folder / f"{instance.sop_instance_uid}.dcm"
            path.write_bytes(self.download(instance))
            files.append(path)
        return files

    def upload(self, paths: Sequence[Path]) -> None:
        """Puts files in by REST, as though they had always been there."""
        for path in paths:
            self._call("/instances", path.read_bytes(), "POST")

    def delete(self, instance: StoredInstance) -> None:
        """Loses an instance."""
        self._call(f"/instances/{instance.orthanc_id}", None, "DELETE")

    def add_modality(self, name: str, modality: Modality) -> None:
        """Tells the running Orthanc of another application entity."""
        self.modalities[name] = modality
        self._call(f"/modalities/{name}", modality.as_setting(), "PUT")

    def remove_modality(self, name: str) -> None:
        """Lets the running Orthanc forget it: of two with one AE title it would report commitments to the first."""
        del self.modalities[name]
        self._call(f"/modalities/{name}", None, "DELETE")

    def echo(self, modality: str) -> bool:
        """Whether that application entity answers Orthanc's C-ECHO."""
        try:
            self._call(f"/modalities/{modality}/echo", {}, "POST")
        except RuntimeError:
            return False
        return True

    def send(self, modality: str, *study_instance_uids: str) -> None:
        """C-STOREs whole studies (without a UID: all) to a modality and returns when they are sent. Raises RuntimeError."""
        studies = self.rest("/studies?expand")
        wanted = [
            study["ID"]
            for study in studies
            if not study_instance_uids or study["MainDicomTags"]["StudyInstanceUID"] in study_instance_uids
        ]
        self._call(f"/modalities/{modality}/store", {"Resources": wanted, "Synchronous": True}, "POST", timeout_s=300)
