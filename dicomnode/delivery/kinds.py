"""Which destinations can be served, and by what."""

from dicomnode.delivery.destination import Sender
from dicomnode.delivery.dicom import DicomSender
from dicomnode.delivery.fhir import FhirSender
from dicomnode.delivery.folder import FolderSender
from dicomnode.delivery.stow import StowSender
from dicomnode.domain.errors import SettingsError
from dicomnode.domain.routes import Destination


def supported(destination: Destination) -> None:
    """Returns if results can be delivered there as set. Raises SettingsError, with what to set instead, if not."""
    sender_for(destination, our_ae_title="", longest_send_s=0.0)


def sender_for(destination: Destination, our_ae_title: str, longest_send_s: float) -> Sender:
    """The sender for this kind of destination; gives one object up after `longest_send_s`. Raises SettingsError."""
    what = f"destination {destination.name!r}"
    if destination.proof == "commitment" and destination.kind != "dicom":
        remedy = 'set proof = "find" (the destination shows it) or "status" (it accepted it)'
        raise SettingsError(f"{what} of kind {destination.kind!r} knows no storage commitment", remedy)
    if destination.kind == "dicom":
        if destination.peer is None:
            raise SettingsError(f"{what} of kind 'dicom' has no peer", "name one of the [[peers]]")
        return DicomSender(destination.peer, our_ae_title, longest_send_s)
    if destination.kind == "folder":
        if destination.path is None:
            raise SettingsError(f"{what} of kind 'folder' has no path", "add path = …")
        return FolderSender(destination.path)
    if destination.kind == "stow":
        if not (destination.url or "").startswith(("https://", "http://")):
            raise SettingsError(f"{what} of kind 'stow' has no url", 'add url = "https://…/dicom-web"')
        return StowSender(destination.url or "", longest_send_s)
    if destination.kind == "fhir":
        if not (destination.url or "").startswith(("https://", "http://")):
            raise SettingsError(f"{what} of kind 'fhir' has no url", 'add url = "https://…/r4"')
        return FhirSender(destination.url or "", longest_send_s)
    raise SettingsError(
        f"{what} is of kind {destination.kind!r}, which this version cannot serve", "use dicom, stow, folder or fhir"
    )
