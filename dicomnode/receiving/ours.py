"""The loop guard: do we receive our own results back? (DESIGN section 3, "ours")"""

from io import BytesIO

from pydicom.filereader import read_dataset

from dicomnode.domain.equipment import CONTRIBUTION_DESCRIPTION, DERIVED_SOP_CLASSES, MANUFACTURER
from dicomnode.domain.uids import has_mark
from dicomnode.receiving.header import Header
from dicomnode.receiving.ledger import InstanceLedger


def is_ours(header: Header, ledger: InstanceLedger) -> bool:
    """Whether this software made the instance: by its UID's mark, by the registry, or by our Contributing Equipment.

    Only classes in which we write results are asked about: no query for each image of a CT.
    """
    return has_mark(header.sop_instance_uid) or (
        header.sop_class_uid in DERIVED_SOP_CLASSES
        and (ledger.is_our_result(header.sop_instance_uid) or names_our_equipment(header))
    )


def names_our_equipment(header: Header) -> bool:
    """Whether an item of Contributing Equipment Sequence (PS3.3 C.12.1, Table C.12-1) is this software's."""
    if not header.contributing_equipment:
        return False
    try:
        items = read_dataset(
            BytesIO(header.contributing_equipment),
            is_implicit_VR=not header.encoding.explicit_vr,
            is_little_endian=header.encoding.little_endian,
        )[0x0018A001].value
        return any(
            str(item.get("Manufacturer", "")).strip() == MANUFACTURER
            and str(item.get("ContributionDescription", "")).strip() == CONTRIBUTION_DESCRIPTION
            for item in items
        )
    except Exception:  # noqa: BLE001 - a damaged sequence names nobody
        return False
