"""A-ASSOCIATE: what is proposed and what we agree to (PS3.8 7.1, PS3.7 D.3). No I/O.

pynetdicom reads, negotiates and writes; that takes 0.3 ms for one context and 25 ms for 128, so that answers are kept by the
bytes of the request: a modality asks the same each time.
"""

import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import PresentationContext, build_context, negotiate_as_acceptor
from pynetdicom.sop_class import Verification

from dicomnode.network import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.network.contexts import UNCOMPRESSED
from dicomnode.receiving.pdu import MustAbort

VERIFICATION = str(Verification)

_APPLICATION_CONTEXT_NAME = UID("1.2.840.10008.3.1.1.1")  # PS3.7 A.2.1
_FIXED_BYTES = 74  # of an A-ASSOCIATE-RQ before its items (PS3.8 Table 9-11)
_CALLED, _CALLING = slice(10, 26), slice(26, 42)
_VERSION = slice(6, 8)
_ITEM_HEADER = struct.Struct(">BxH")  # type, length
_PRESENTATION_CONTEXT = 0x20  # PS3.8 9.3.2.2
_MOST_CONTEXTS = 128  # their IDs are the odd numbers of one byte
_EXPENSIVE_BYTES = 1 << 14  # pynetdicom takes a second for 128 contexts with 40 transfer syntaxes each
_REMEMBERED = 64
_LONGEST_REMEMBERED = 1 << 15


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context. as_scp, as_scu: our roles in it; the latter only where role selection said so."""

    abstract_syntax_uid: str
    transfer_syntax_uid: str
    as_scp: bool = True
    as_scu: bool = False


@dataclass(frozen=True, slots=True)
class Agreement:
    """What one association may do. answer: the A-ASSOCIATE-AC. longest_pdu: that the peer takes; 0 for any.

    extended: SOP class → Service Class Application Information that was agreed on (PS3.7 D.3.3.5).
    """

    answer: bytes
    contexts: Mapping[int, Context]
    longest_pdu: int
    extended: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Titles:
    """Who calls whom, and by which version of the protocol (bit 0: version 1)."""

    calling_ae: str
    called_ae: str
    version: int


def titles(request: bytes) -> Titles:
    """AE titles of an A-ASSOCIATE-RQ. Raises MustAbort."""
    if len(request) < _FIXED_BYTES:
        raise MustAbort("association_request")
    try:
        calling, called = (request[place].decode("ascii").strip(" \0") for place in (_CALLING, _CALLED))
    except UnicodeDecodeError:
        raise MustAbort("association_request") from None
    return Titles(calling, called, int.from_bytes(request[_VERSION], "big"))


def _presentation_contexts(request: bytes) -> int:
    """How many are proposed. pynetdicom would take 200 µs for each of the thousands that fit in a request."""
    count, at = 0, _FIXED_BYTES
    while at + _ITEM_HEADER.size <= len(request):
        kind, length = _ITEM_HEADER.unpack_from(request, at)
        count += kind == _PRESENTATION_CONTEXT
        at += _ITEM_HEADER.size + length
    return count


class Negotiator:
    """Answers requests under one configuration; another configuration takes another negotiator. Safe for many threads."""

    def __init__(
        self,
        sop_classes: Iterable[str],
        transfer_syntaxes: Sequence[str],
        announced_pdu_bytes: int,
        services: Iterable[str] = (),
        by_right: Mapping[str, str] | None = None,
        extended: Mapping[str, bytes] | None = None,
        held: Callable[[str], Sequence[str]] | None = None,
    ) -> None:
        """sop_classes: of Storage. transfer_syntaxes: in the order in which we choose where several are offered.

        announced_pdu_bytes: the Maximum Length that we ask for (PS3.8 D.1). services: other SOP classes, which the peer may use
        in either role (storage commitment). by_right: SOP class → the right that a peer needs for it (Query/Retrieve).
        extended: SOP class → what we can do of what its extended negotiation asks for. held: SOP class → the transfer syntaxes
        in which such objects are here: in a context in which we send, the first of them that is offered is chosen.
        """
        self._storage = frozenset(sop_classes)
        self._services = frozenset(services)
        self._by_right, self._extended = dict(by_right or {}), dict(extended or {})
        self._held = held
        self._transfer_syntaxes = list(transfer_syntaxes)
        self._announced_pdu_bytes = announced_pdu_bytes
        self._supported: dict[tuple[str, bool, bool], PresentationContext] = {}
        self._remembered: OrderedDict[tuple[bytes, frozenset[str]], Agreement] = OrderedDict()
        self._lock = threading.Lock()
        self._expensive = threading.Lock()  # one at a time: with 25 of them the interpreter would serve nobody else

    def agree(self, request: bytes, *, may: Collection[str]) -> Agreement:
        """The answer to an A-ASSOCIATE-RQ of a caller with these rights. Raises MustAbort for one that is malformed."""
        may = frozenset(may)
        key = (request, may)
        with self._lock:
            known = self._remembered.get(key)
            if known is not None:
                self._remembered.move_to_end(key)
                return known
        if _presentation_contexts(request) > _MOST_CONTEXTS:
            raise MustAbort("too_many_contexts")
        with self._expensive if len(request) > _EXPENSIVE_BYTES else nullcontext():
            primitive, agreement = self._answered(request, may)
        secret = any(isinstance(item, UserIdentityNegotiation) for item in primitive.user_information)
        changing = self._held is not None and any(context.as_scu for context in agreement.contexts.values())
        if not secret and not changing and len(request) <= _LONGEST_REMEMBERED:
            with self._lock:
                self._remembered[key] = agreement
                if len(self._remembered) > _REMEMBERED:
                    self._remembered.popitem(last=False)
        return agreement

    def _answered(self, request: bytes, may: frozenset[str]) -> tuple[A_ASSOCIATE, Agreement]:
        """The request as it is understood, and the answer. Raises MustAbort."""
        try:
            proposed = A_ASSOCIATE_RQ()
            proposed.decode(request)
            primitive = proposed.to_primitive()
            return primitive, self._negotiated(primitive, may)
        except Exception as error:  # boundary: pynetdicom raises whatever its parsing ran into
            raise MustAbort("association_request") from error

    def _negotiated(self, request: A_ASSOCIATE, may: frozenset[str]) -> Agreement:
        asked = {str(context.abstract_syntax) for context in request.presentation_context_definition_list}
        roles = {
            item.sop_class_uid: (item.scu_role, item.scp_role)
            for item in request.user_information
            if isinstance(item, SCP_SCU_RoleSelectionNegotiation)
        }
        # Who may not store still gets contexts in which we send to it: the sub-operations of a C-GET (PS3.4 C.4.3).
        takers = frozenset(str(uid) for uid, (_, scp_role) in roles.items() if scp_role and "retrieve" in may)
        storage = self._storage if "store" in may else self._storage & takers
        rights = {uid for uid, right in self._by_right.items() if right in may}
        allowed = {VERIFICATION, *self._services, *rights, *storage}
        supported = [self._for_sending(uid, may, takers) for uid in sorted(asked & allowed)]
        results, role_items = negotiate_as_acceptor(request.presentation_context_definition_list, supported, roles)
        accepted = {
            context.context_id: Context(
                str(context.abstract_syntax), str(context.transfer_syntax[0]), bool(context.as_scp), bool(context.as_scu)
            )
            for context in results
            if context.result == 0
        }
        extended = {
            str(item.sop_class_uid): _common(
                item.service_class_application_information, self._extended[str(item.sop_class_uid)]
            )
            for item in request.user_information
            if isinstance(item, SOPClassExtendedNegotiation) and item.sop_class_uid in self._extended.keys() & rights
        }
        answer = self._answer(request, results, [*role_items, *_extended_items(extended)])
        return Agreement(answer, accepted, request.maximum_length_received or 0, extended)

    def _for_sending(self, abstract_syntax: str, may: frozenset[str], takers: frozenset[str]) -> PresentationContext:
        """The supported context; where we may have to send in it, what we hold is chosen before what we would like to get."""
        context = self._supported_context(abstract_syntax, may)
        held = self._held(abstract_syntax) if self._held is not None and abstract_syntax in self._storage & takers else ()
        if not held:
            return context
        own = build_context(abstract_syntax, list(dict.fromkeys([*held, *self._transfer_syntaxes])))
        own.scu_role, own.scp_role = context.scu_role, context.scp_role
        return own

    def _supported_context(self, abstract_syntax: str, may: frozenset[str]) -> PresentationContext:
        """Built once for each class and only read afterwards: each takes pynetdicom 0.4 ms to build."""
        storage = abstract_syntax in self._storage
        either = abstract_syntax in self._services
        # As the requestor's roles are named (PS3.7 D.3.3.4): of Storage we are the SCP, and the SCU within a C-GET.
        scu_role = "store" in may if storage else True
        scp_role = "retrieve" in may and bool(self._by_right) if storage else either
        key = (abstract_syntax, scu_role, scp_role)
        if key not in self._supported:
            context = build_context(abstract_syntax, self._transfer_syntaxes if storage else list(UNCOMPRESSED))
            context.scu_role, context.scp_role = scu_role, scp_role
            self._supported[key] = context
        return self._supported[key]

    def _answer(
        self,
        request: A_ASSOCIATE,
        results: Sequence[PresentationContext],
        agreed_items: Sequence[SCP_SCU_RoleSelectionNegotiation | SOPClassExtendedNegotiation],
    ) -> bytes:
        length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
        version = ImplementationVersionNameNotification()
        length.maximum_length_received = self._announced_pdu_bytes
        implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        items = [length, implementation, version, *agreed_items]
        if any(isinstance(item, AsynchronousOperationsWindowNegotiation) for item in request.user_information):
            window = AsynchronousOperationsWindowNegotiation()
            window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 1
            items.append(window)
        # Of Storage, extended negotiation asks for levels and digital signatures: no answer means the defaults of the standard
        # (PS3.7 D.3.3.5, D.3.3.6).
        accepted = A_ASSOCIATE()
        accepted.application_context_name = _APPLICATION_CONTEXT_NAME
        accepted.calling_ae_title, accepted.called_ae_title = request.calling_ae_title, request.called_ae_title
        accepted.result, accepted.result_source = 0, 1
        accepted.presentation_context_definition_results_list = results
        accepted.user_information = items
        pdu = A_ASSOCIATE_AC()
        pdu.from_primitive(accepted)
        return bytes(pdu.encode())


def _common(asked: bytes, able: bytes) -> bytes:
    """Byte by byte what both sides can do; fields that we do not know are answered with 0, "not supported" (PS3.4 C.5.1.1)."""
    return bytes(one & other for one, other in zip(asked, able.ljust(len(asked), b"\0"), strict=False))


def _extended_items(extended: Mapping[str, bytes]) -> list[SOPClassExtendedNegotiation]:
    items = []
    for sop_class, information in extended.items():
        item = SOPClassExtendedNegotiation()
        item.sop_class_uid, item.service_class_application_information = sop_class, information
        items.append(item)
    return items
