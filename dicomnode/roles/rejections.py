"""Rejection notes from peers that may send them: read, carried out, never again looked at."""

import structlog

from dicomnode.domain.errors import CorruptInstance
from dicomnode.domain.rejection import REJECTIONS
from dicomnode.registry import Registry
from dicomnode.settings import Settings
from dicomnode.storage import Store

_AT_ONCE = 100
_log = structlog.get_logger()


class RejectionNotes:
    """`sweep` as often as one likes."""

    def __init__(self, registry: Registry, store: Store, settings: Settings) -> None:
        from dicomnode.network import Permissions
        from dicomnode.roles import wiring

        self._registry, self._store = registry, store
        self._permissions = Permissions(tuple(wiring.peers(settings).values()))

    def sweep(self) -> int:
        """Carry out what came in; how many notes."""
        from dicomnode.network.rejection_notes import read_rejection_note

        done = 0
        for one in self._registry.keeping.unexamined_notes(_AT_ONCE):
            try:
                note = read_rejection_note(self._store.absolute(one.path))
            except CorruptInstance as error:
                _log.warning("a key object selection cannot be read", study=one.study_key, exc_info=error)
                note = None
            peer = self._permissions.caller(one.calling_ae, one.address)
            if note is not None and (peer is None or "reject" not in peer.may):
                _log.warning("a rejection note was ignored: its sender may not reject", study=one.study_key)
                note = None
            if note is None:
                self._registry.keeping.note_examined(one.instance_id)
                continue
            why = f"{peer.name if peer else 'a peer'} rejected it: {REJECTIONS[note.code]} ({note.code})"
            uids = [named.sop_instance_uid for named in note.named]
            changed = self._registry.keeping.carry_out_note(one, uids, note.code, why)
            _log.warning("a rejection note was carried out", study=one.study_key, count=len(changed))
            done += 1
        return done
