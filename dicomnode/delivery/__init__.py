"""The outbox's way out: sends results to their destinations until each is there, and asks for proof.

Enters: claimed deliveries from the registry, spooled bytes from the store. Leaves: C-STORE to DICOM peers, files in folders,
and for each delivery an event with its reason. Promises: bytes are checked against their SHA-256, and patient and study
against the newest header, before each send; an unknown outcome is sent again under the same UID, so the destination has it
once; SEG before SR and SC, one association a job; no destination waits for another; nothing is given up before 14 days, and
then it is held, not dropped. Knows nothing of images and engines.
"""

from dicomnode.delivery.breaker import Breaker
from dicomnode.delivery.deliverer import Deliverer
from dicomnode.delivery.kinds import supported
from dicomnode.delivery.policy import DeliveryPolicy, backoff, decide

__all__ = ["Breaker", "Deliverer", "DeliveryPolicy", "backoff", "decide", "supported"]
