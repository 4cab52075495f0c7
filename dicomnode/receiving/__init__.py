"""C-STORE and C-ECHO as SCP.

Enters: connections of peers. Leaves: durable files in the store, rows in the ledger (`Received`), statuses to the sender.
Promises: 0x0000 only after bytes, folder entry and row are on disk; the data set is kept byte for byte in the transfer syntax
that it came in, and streamed, never held whole; our own results coming back start nothing; unknown peers are refused; a hostile
or broken peer ends only itself. The way of an image: `listener` → `acceptor` → `association` → `handler` → `keeper`.
Knows no imaging and no engines; never imports torch, MONAI or highdicom.
"""

from dicomnode.receiving.handler import InstanceHandler, SenderGone, StoreAnswer, StoreRequest
from dicomnode.receiving.ledger import InstanceLedger
from dicomnode.receiving.limits import Limits
from dicomnode.receiving.receiver import Receiver

__all__ = ["InstanceHandler", "InstanceLedger", "Limits", "Receiver", "SenderGone", "StoreAnswer", "StoreRequest"]
