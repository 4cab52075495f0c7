"""What the constructors of all kinds are given alike: names, numbers, equipment."""

from typing import Any

from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.domain.equipment import MANUFACTURER, MODEL_NAME
from dicomnode.domain.profiles import ResultKind
from dicomnode.results import equipment
from dicomnode.results.context import Context


def series_arguments(context: Context, kind: ResultKind, number: int = 1) -> dict[str, Any]:
    """Series, instance and general equipment of the object with this Instance Number, as highdicom's keyword arguments."""
    return {
        "series_instance_uid": context.uid(kind, "series"),
        "series_number": context.series_number(kind),
        "sop_instance_uid": context.uid(kind, "instance", str(number)),
        "instance_number": number,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MODEL_NAME,
        "software_versions": equipment.software_versions(context.model),
        "device_serial_number": equipment.device_serial_number(context.model),
        "transfer_syntax_uid": ExplicitVRLittleEndian,
        "contributing_equipment": equipment.contributing_equipment(context.model, context.moment, context.request.uid_root),
    }
