"""Which SOP classes and transfer syntaxes there are, and how they are proposed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from pydicom._uid_dict import UID_dictionary
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom._globals import ALL_TRANSFER_SYNTAXES
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import register_uid, uid_to_service_class

from dicomnode.domain.errors import CorruptInstance, UsageError

MOST_CONTEXTS = 128  # odd numbers 1-255 (PS3.8 9.3.2.2)

_IMAGE_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
# Below that root, but without patient and study: Non-Patient Object Storage (PS3.4 GG), which has no place in a study.
_NON_PATIENT_CLASSES = frozenset(_IMAGE_STORAGE_ROOT + tail for tail in ("200.1", "200.3", "200.7", "201.1"))


def _storage_sop_classes() -> frozenset[str]:
    """Those of PS3.4 B.5 and I.4, and the retired ones of PS3.6: archives still send what old devices made."""
    current = {str(context.abstract_syntax) for context in AllStoragePresentationContexts}
    retired = {
        uid
        for uid, (_, kind, *_) in UID_dictionary.items()
        if kind == "SOP Class" and uid.startswith(_IMAGE_STORAGE_ROOT) and "Storage" in UID(uid).name
    }
    return frozenset(current | retired) - _NON_PATIENT_CLASSES


STORAGE_SOP_CLASSES = _storage_sop_classes()

# The retired JPEG processes (PS3.5-2004 A.4.1) still come out of old archives; they are stored as received like all others.
_RETIRED_JPEG = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (52, 53, 54, 55, 56, 58, 59, 60, 61, 62, 63, 64, 65, 66))
# Live video and audio streams (PS3.22) are no data sets on an association.
_REAL_TIME_VIDEO = "1.2.840.10008.1.2.7."


def _transfer_syntaxes() -> tuple[str, ...]:
    """In the order in which we choose when one context offers several.

    Lossless before uncompressed: a sender that offers both (dcmsend) mostly has the former and would decompress for nothing.
    Uncompressed before lossy: a sender that offers both must not compress for us.
    """
    lossless = ("57", "70", "80", "90", "92", "201", "202", "110")
    first = [
        *(f"1.2.840.10008.1.2.4.{n}" for n in lossless),
        "1.2.840.10008.1.2.5",  # RLE
        str(ExplicitVRLittleEndian),
        str(ImplicitVRLittleEndian),
    ]
    last = [str(ExplicitVRBigEndian)]
    others = [uid for uid in (*ALL_TRANSFER_SYNTAXES, *_RETIRED_JPEG) if uid not in {*first, *last}]
    return tuple(first + [uid for uid in others if not uid.startswith(_REAL_TIME_VIDEO)] + last)


TRANSFER_SYNTAXES = _transfer_syntaxes()
UNCOMPRESSED = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))


def serve_as_storage(sop_classes: Iterable[str]) -> None:
    """Let pynetdicom run its Storage service for classes that it does not know: retired and private ones."""
    for uid in sop_classes:
        if uid_to_service_class(uid) is not StorageServiceClass:
            register_uid(uid, "Storage_" + uid.replace(".", "_"), StorageServiceClass)


class HasSyntax(Protocol):
    """An object that knows its class and syntax, such as `ResultObject` and `Received`."""

    @property
    def sop_class_uid(self) -> str:
        """SOP Class UID (0008,0016)."""

    @property
    def transfer_syntax_uid(self) -> str:
        """Transfer Syntax UID (0002,0010)."""


def class_and_syntax(item: Path | HasSyntax) -> tuple[str, str]:
    """SOP class and transfer syntax of an object or file. Raises CorruptInstance for a file that does not say."""
    if not isinstance(item, Path):
        return item.sop_class_uid, item.transfer_syntax_uid
    try:
        meta = read_file_meta_info(item)
        return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
    except Exception as error:  # noqa: BLE001 - pydicom raises many kinds for a file that is not DICOM
        raise CorruptInstance(
            f"{item.name} has no readable File Meta Information ({type(error).__name__})", "send only DICOM Part 10 files"
        ) from None


def store_contexts_for(items: Iterable[Path | HasSyntax]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The presentation contexts, 128 at most, under which these objects can be sent: (SOP class, transfer syntaxes).

    Each syntax stands in a context of its own, because a peer picks one syntax of a context and could pick one in which the
    object is not. Uncompressed objects are offered in the other uncompressed syntax as well: `send_file` can convert those.
    Raises UsageError for more than 128.
    """
    contexts: dict[tuple[str, tuple[str, ...]], None] = {}
    for sop_class, syntax in dict.fromkeys(class_and_syntax(item) for item in items):
        for offered in UNCOMPRESSED if syntax in UNCOMPRESSED else (syntax,):
            contexts[sop_class, (offered,)] = None
    if len(contexts) > MOST_CONTEXTS:
        raise UsageError(
            f"the objects need {len(contexts)} presentation contexts, an association has {MOST_CONTEXTS}",
            "send them in smaller groups",
        )
    return tuple(contexts)
