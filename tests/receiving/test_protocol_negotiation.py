"""A-ASSOCIATE, answered by the node's own loop and by stock pynetdicom: they must agree."""

from pynetdicom.pdu import A_ASSOCIATE_AC
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)

from dicomnode.network import STORAGE_SOP_CLASSES
from tests.receiving.raw import (
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    RELEASE_RP,
    associate_rq,
    pdu,
)
from tests.receiving.samples import CT, ELE, ILE
from tests.receiving.speaking import Speaking, message, response_of

VERIFICATION, MR = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.4"


def negotiated(node: Speaking, request: bytes) -> A_ASSOCIATE_AC:
    with node.sender() as sender:
        sender.send(request)
        kind, body = sender.receive()
        assert kind == ASSOCIATE_AC
        answer = A_ASSOCIATE_AC()
        answer.decode(pdu(kind, body))
        assert sender.release() == RELEASE_RP
    return answer


def results(answer: A_ASSOCIATE_AC) -> dict[int, tuple[int, str]]:
    """Of each context: result and, where it is accepted, its transfer syntax."""
    return {
        one.presentation_context_id: (one.result, str(one.transfer_syntax) if not one.result else "")
        for one in answer.presentation_context
    }


def items_of(answer: A_ASSOCIATE_AC, kind: type) -> list[object]:
    return [one for one in answer.to_primitive().user_information if isinstance(one, kind)]


def role(uid: str, scu: bool, scp: bool) -> SCP_SCU_RoleSelectionNegotiation:
    item = SCP_SCU_RoleSelectionNegotiation()
    item.sop_class_uid, item.scu_role, item.scp_role = uid, scu, scp
    return item


def test_128_contexts_get_their_results_and_the_last_one_can_be_used(node: Speaking) -> None:
    classes = [*sorted(STORAGE_SOP_CLASSES - {CT})[:125], "1.2.3.4.5", CT]
    request = associate_rq(contexts=[(VERIFICATION, (ILE,)), *((uid, (ILE, ELE)) for uid in classes)])
    found = results(negotiated(node, request))
    assert len(found) == 128
    assert found.pop(253) == (3, "")  # abstract syntax not supported
    assert found.pop(1) == (0, ILE)
    assert set(found.values()) == {(0, ELE)}
    with node.sender() as sender:
        sender.send(request)
        assert sender.receive()[0] == ASSOCIATE_AC
        sender.send(message(b"last", context=255))
        assert response_of(sender).Status == 0
    (request_heard, _), *_ = node.handler.kept
    assert request_heard.abstract_syntax_uid == CT


def test_unknown_syntaxes_are_refused_context_by_context(node: Speaking) -> None:
    request = associate_rq(contexts=[(CT, ("1.2.3.4",)), ("1.2.3.9", (ELE,)), (CT, ("1.2.3.4", ILE))])
    assert results(negotiated(node, request)) == {1: (4, ""), 3: (3, ""), 5: (0, ILE)}


def test_roles_are_answered_we_are_the_scp(node: Speaking) -> None:
    uids = [CT, MR, "1.2.840.10008.5.1.4.1.1.7"]
    items = [role(uid, *roles) for uid, roles in zip(uids, [(True, False), (True, True), (False, True)], strict=True)]
    answer = negotiated(node, associate_rq(contexts=[(uid, (ELE,)) for uid in uids], items=items))
    found = items_of(answer, SCP_SCU_RoleSelectionNegotiation)
    assert {(one.sop_class_uid, one.scu_role, bool(one.scp_role)) for one in found} == {(CT, True, False), (MR, True, False)}
    assert results(answer) == {
        1: (0, ELE),
        3: (0, ELE),
        5: (1, ""),
    }  # a peer that would only be SCP is of no use: user rejection


def test_an_asynchronous_window_is_answered_with_one(node: Speaking) -> None:
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked, window.maximum_number_operations_performed = 0, 8
    (found,) = items_of(negotiated(node, associate_rq(items=[window])), AsynchronousOperationsWindowNegotiation)
    assert (found.maximum_number_operations_invoked, found.maximum_number_operations_performed) == (1, 1)
    assert items_of(negotiated(node, associate_rq()), AsynchronousOperationsWindowNegotiation) == []


def test_extended_negotiation_and_user_identity_leave_the_defaults(node: Speaking) -> None:
    extended, common, identity = SOPClassExtendedNegotiation(), SOPClassCommonExtendedNegotiation(), UserIdentityNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = CT, b"\x02\x00\x03\x00\x01\x00"
    common.sop_class_uid, common.service_class_uid = CT, "1.2.840.10008.4.2"
    common.related_general_sop_class_identification = [MR]
    identity.user_identity_type, identity.primary_field, identity.secondary_field = 2, b"me", b"secret"
    answer = negotiated(node, associate_rq(items=[extended, common, identity]))
    assert results(answer) == {1: (0, ELE)}
    for kind in (SOPClassExtendedNegotiation, SOPClassCommonExtendedNegotiation):
        assert items_of(answer, kind) == []


def test_we_ask_for_128_kb(node: Speaking) -> None:
    (found,) = items_of(negotiated(node, associate_rq()), MaximumLengthNotification)
    assert found.maximum_length_received == 131_072


def test_an_unknown_called_title_and_another_version_are_rejected_with_their_codes(node: Speaking) -> None:
    other = bytearray(associate_rq())
    other[6:8] = b"\x00\x02"
    for request, reason in ((associate_rq(called="ELSEWHERE"), (1, 1, 7)), (bytes(other), (1, 2, 2))):
        with node.sender() as sender:
            sender.send(request)
            kind, body = sender.receive()
            assert (kind, tuple(body[1:])) == (ASSOCIATE_RJ, reason)
            assert sender.receive() == (0, b"")  # closed
