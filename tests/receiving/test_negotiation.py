"""Answers kept by the bytes of the request, and what we lean on in pynetdicom for them."""

import inspect
import struct

import pynetdicom
import pytest
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from dicomnode.network import STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES
from dicomnode.receiving import negotiation
from dicomnode.receiving.negotiation import Context, Negotiator, titles
from dicomnode.receiving.pdu import MustAbort
from tests.receiving.raw import associate_rq
from tests.receiving.samples import CT, ELE, ILE

VERIFICATION = "1.2.840.10008.1.1"


@pytest.fixture
def negotiator() -> Negotiator:
    return Negotiator(STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES, 131_072)


def test_the_same_request_gets_the_same_answer_without_negotiating_again(negotiator: Negotiator) -> None:
    first = negotiator.agree(associate_rq(), may={"store"})
    assert negotiator.agree(bytes(bytearray(associate_rq())), may={"store"}) is first
    assert first.contexts == {1: Context(CT, ELE)}
    assert first.longest_pdu == 16384
    assert negotiator.agree(associate_rq(called="SECOND"), may={"store"}) is not first


def test_who_may_not_store_may_still_ask_for_an_echo(negotiator: Negotiator) -> None:
    request = associate_rq(contexts=[(CT, (ELE,)), (VERIFICATION, (ILE,))])
    assert set(negotiator.agree(request, may={"store"}).contexts) == {1, 3}
    assert negotiator.agree(request, may=()).contexts == {3: Context(VERIFICATION, ILE)}


def test_a_request_with_a_user_identity_is_not_kept(negotiator: Negotiator) -> None:
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field, identity.secondary_field = 2, b"me", b"secret"
    request = associate_rq(items=[identity])
    first = negotiator.agree(request, may={"store"})
    assert negotiator.agree(request, may={"store"}) is not first
    assert b"secret" not in first.answer


def test_another_configuration_gives_another_answer() -> None:
    request = associate_rq(contexts=[(CT, (ILE, ELE))])
    for order in ((ILE, ELE), (ELE, ILE)):
        assert Negotiator({CT}, order, 16384).agree(request, may={"store"}).contexts == {1: Context(CT, order[0])}


def test_a_peer_that_asks_otherwise_each_time_fills_nothing(negotiator: Negotiator) -> None:
    for number in range(200):
        negotiator.agree(associate_rq(longest_pdu=16384 + number), may={"store"})
    assert len(negotiator._remembered) <= 64


@pytest.mark.parametrize("length", [0, 6, 73, 80, 120])
def test_a_request_that_ends_early_ends_the_association(negotiator: Negotiator, length: int) -> None:
    whole = associate_rq()
    cut = whole[:2] + struct.pack(">L", max(length - 6, 0)) + whole[6:length]
    with pytest.raises(MustAbort):
        (titles(cut), negotiator.agree(cut, may={"store"}))


def test_titles_are_read_without_their_padding() -> None:
    read = titles(associate_rq(called="SECOND"))
    assert (read.calling_ae, read.called_ae, read.version) == ("RAW", "SECOND", 1)


def test_what_negotiation_leans_on_in_pynetdicom_is_where_it_was() -> None:
    """pyproject pins 3.0.x; a release that moves these must fail here and not in a hospital."""
    assert pynetdicom.__version__.startswith("3.0.")
    assert list(inspect.signature(negotiation.negotiate_as_acceptor).parameters) == ["rq_contexts", "ac_contexts", "roles"]
    for method in ("decode", "to_primitive"):
        assert method in dir(negotiation.A_ASSOCIATE_RQ)
    for method in ("encode", "from_primitive"):
        assert method in dir(negotiation.A_ASSOCIATE_AC)
    for attribute in (
        "presentation_context_definition_list",
        "presentation_context_definition_results_list",
        "user_information",
        "maximum_length_received",
    ):
        assert hasattr(negotiation.A_ASSOCIATE, attribute)
    assert {"scu_role", "scp_role"} <= {name for name in dir(negotiation.PresentationContext) if not name.startswith("_")}
