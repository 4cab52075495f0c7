"""What is not understood is refused with the right status, and nothing of it stays."""

import zlib
from collections.abc import Callable

import pytest
from pydicom.uid import MRImageStorage, generate_uid

from dicomnode.domain.statuses import CANNOT_UNDERSTAND, DATA_SET_DOES_NOT_MATCH_SOP_CLASS, SUCCESS
from dicomnode.receiving import Limits
from tests.receiving.reception import Reception, context
from tests.receiving.samples import CT, ELE, ILE, ct, encoded, store, store_bytes

DEFLATED = "1.2.840.10008.1.2.1.99"
PRIVATE_CLASS = "1.3.6.1.4.1.55555.7.1"


def assert_nothing_kept(reception: Reception) -> None:
    assert reception.files("instances") == []
    assert reception.files("incoming") == []
    assert list(reception.registry.known_files()) == []


def test_a_class_other_than_the_commands_gets_a900(reception: Reception) -> None:
    image = ct(SOPClassUID=MRImageStorage)
    with reception.associated(context(CT, ELE)) as association:
        response = store_bytes(association, CT, image.SOPInstanceUID, encoded(image))
    assert response.Status == DATA_SET_DOES_NOT_MATCH_SOP_CLASS
    assert_nothing_kept(reception)


def test_an_instance_other_than_the_commands_gets_c000_with_a_comment(reception: Reception) -> None:
    image = ct()
    with reception.associated(context(CT, ELE)) as association:
        response = store_bytes(association, CT, generate_uid(), encoded(image))
    assert response.Status == CANNOT_UNDERSTAND
    assert response.ErrorComment == "SOPInstanceUID in data set and command differ"
    assert_nothing_kept(reception)


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_a_missing_uid_gets_c000_and_its_name(reception: Reception, keyword: str) -> None:
    image = ct()
    instance = image.SOPInstanceUID
    delattr(image, keyword)
    with reception.associated(context(CT, ELE)) as association:
        response = store_bytes(association, CT, instance, encoded(image))
    assert response.Status == CANNOT_UNDERSTAND
    assert response.ErrorComment == f"{keyword} is missing"
    assert_nothing_kept(reception)


def test_a_data_set_cut_inside_its_header_gets_c000_and_the_association_goes_on(reception: Reception) -> None:
    image, next_image = ct(), ct()
    with reception.associated(context(CT, ELE)) as association:
        cut = store_bytes(association, CT, image.SOPInstanceUID, encoded(image)[:300])
        good = store(association, next_image)
    assert (cut.Status, good.Status) == (CANNOT_UNDERSTAND, SUCCESS)
    assert len(reception.files()) == 1


def test_bytes_in_another_transfer_syntax_than_agreed_get_c000(reception: Reception) -> None:
    image = ct()
    with reception.associated(context(CT, ELE)) as association:
        response = store_bytes(association, CT, image.SOPInstanceUID, encoded(image, ILE))
    assert response.Status == CANNOT_UNDERSTAND
    assert_nothing_kept(reception)


def test_a_request_without_data_is_answered_and_not_left_waiting(reception: Reception) -> None:
    with reception.associated(context(CT, ELE)) as association:
        response = store_bytes(association, CT, generate_uid(), None)
    assert response.Status == CANNOT_UNDERSTAND
    assert_nothing_kept(reception)


def test_objects_without_pixels_or_with_too_few_are_stored(reception: Reception) -> None:
    """Pixel data are judged by imaging, not here."""
    without, short = ct(PixelData=None), ct()
    with reception.associated(context(CT, ELE)) as association:
        assert store(association, without).Status == SUCCESS
        assert store_bytes(association, CT, short.SOPInstanceUID, encoded(short)[:-100]).Status == SUCCESS
    assert reception.known(without.SOPInstanceUID).pixel_digest == ""
    assert reception.kept_data_set(short.SOPInstanceUID) == encoded(short)[:-100]


def test_a_deflate_bomb_is_refused_at_the_bound(make_reception: Callable[..., Reception]) -> None:
    reception = make_reception(limits=Limits(max_inflated_bytes=1 << 20))
    image = ct(PixelData=bytes(8 << 20))
    packer = zlib.compressobj(wbits=-15)
    bomb = packer.compress(encoded(image)) + packer.flush()
    with reception.associated(context(CT, DEFLATED)) as association:
        response = store_bytes(association, CT, image.SOPInstanceUID, bomb)
    assert response.Status == CANNOT_UNDERSTAND
    assert_nothing_kept(reception)


def test_a_deflated_object_is_kept_deflated(reception: Reception) -> None:
    image = ct()
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(encoded(image)) + packer.flush()
    with reception.associated(context(CT, DEFLATED)) as association:
        assert store_bytes(association, CT, image.SOPInstanceUID, packed).Status == SUCCESS
    assert reception.kept_data_set(image.SOPInstanceUID) == packed
    assert reception.known(image.SOPInstanceUID).attributes["Rows"] == "16"


def test_an_unknown_sop_class_is_refused_in_negotiation_and_a_configured_one_is_stored(
    reception: Reception, make_reception: Callable[..., Reception]
) -> None:
    image = ct(SOPClassUID=PRIVATE_CLASS)
    with reception.associated(context(CT, ELE), context(PRIVATE_CLASS, ELE)) as association:
        assert [str(one.abstract_syntax) for one in association.accepted_contexts] == [CT]
        assert [one.result for one in association.rejected_contexts] == [0x03]  # abstract syntax not supported
    configured = make_reception(extra_sop_classes=[PRIVATE_CLASS])
    with configured.associated(context(PRIVATE_CLASS, ELE)) as association:
        assert store(association, image).Status == SUCCESS
    assert configured.known(image.SOPInstanceUID).sop_class_uid == PRIVATE_CLASS


def test_a_command_for_another_class_than_the_contexts_is_refused(reception: Reception) -> None:
    image = ct(SOPClassUID=MRImageStorage)
    with reception.associated(context(CT, ELE)) as association:
        assert store(association, image).Status == 0x0122
    assert_nothing_kept(reception)
