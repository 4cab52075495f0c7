"""Which storage SOP classes there are, and how they and their transfer syntaxes are proposed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from pydicom._uid_dict import UID_dictionary
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.presentation import AllStoragePresentationContexts

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

UNCOMPRESSED = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))


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
