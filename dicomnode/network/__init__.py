"""Talking DICOM to peers, and who may talk to us.

Enters: peers of the settings, files to send, addresses and AE titles of callers. Leaves: associations, C-STORE statuses,
answers to C-ECHO and C-FIND, permission or none. Promises: a peer that cannot be reached is `PeerUnreachable` with the reason
in words and what to do; a lost link is told apart from a refusal (`send_file` gives None); files leave as the bytes that they
are, converted only between uncompressed transfer syntaxes. Knows no rows.
"""

from dicomnode.domain.transfer_syntaxes import TRANSFER_SYNTAXES
from dicomnode.network.association import Timeouts, associate
from dicomnode.network.contexts import STORAGE_SOP_CLASSES, store_contexts_for
from dicomnode.network.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.network.permission import Permissions
from dicomnode.network.services import echo, find_instance, send_file

__all__ = [
    "IMPLEMENTATION_CLASS_UID",
    "IMPLEMENTATION_VERSION_NAME",
    "STORAGE_SOP_CLASSES",
    "TRANSFER_SYNTAXES",
    "Permissions",
    "Timeouts",
    "associate",
    "echo",
    "find_instance",
    "send_file",
    "store_contexts_for",
]
