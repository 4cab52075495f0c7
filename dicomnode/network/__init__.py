"""Talking DICOM to peers, and who may talk to us.

Enters: peers of the settings, files to send, addresses and AE titles of callers. Leaves: associations, C-STORE statuses,
answers to C-ECHO and C-FIND, storage commitments asked for and reported, permission or none. Promises: a peer that cannot be
reached is `PeerUnreachable` with the reason in words and what to do; a lost link is told apart from a refusal (`send_file`
gives None); files leave as the bytes that they are, converted only between uncompressed transfer syntaxes. Knows no rows.
"""

from dicomnode.domain.transfer_syntaxes import TRANSFER_SYNTAXES
from dicomnode.network.association import Timeouts, associate
from dicomnode.network.commitment import (
    COMMITMENT_SOP_CLASS,
    COMMITMENT_SOP_INSTANCE,
    NO_SUCH_OBJECT,
    CommitmentReport,
    CommitmentRequest,
    ask_commitment,
    new_transaction_uid,
    read_report,
    read_request,
    send_report,
)
from dicomnode.network.contexts import STORAGE_SOP_CLASSES, store_contexts_for
from dicomnode.network.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.network.permission import Permissions
from dicomnode.network.services import echo, find_instance, find_instances, send_file

__all__ = [
    "COMMITMENT_SOP_CLASS",
    "COMMITMENT_SOP_INSTANCE",
    "IMPLEMENTATION_CLASS_UID",
    "IMPLEMENTATION_VERSION_NAME",
    "NO_SUCH_OBJECT",
    "STORAGE_SOP_CLASSES",
    "TRANSFER_SYNTAXES",
    "CommitmentReport",
    "CommitmentRequest",
    "Permissions",
    "Timeouts",
    "ask_commitment",
    "associate",
    "echo",
    "find_instance",
    "find_instances",
    "new_transaction_uid",
    "read_report",
    "read_request",
    "send_file",
    "send_report",
    "store_contexts_for",
]
