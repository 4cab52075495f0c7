"""What the constructors of all kinds are given alike: names, numbers, equipment."""

from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.domain.equipment import MANUFACTURER, MODEL_NAME
from dicomnode.domain.profiles import ResultKind
from dicomnode.results import equipment
from dicomnode.results.context import Context
from dicomnode.results.source import Sources, copy_body_part

# Defined terms of Body Part Examined without sides (PS3.16 Annex L).
UNPAIRED_BODY_PARTS = frozenset(
    {"ABDOMEN", "ABDOMENPELVIS", "BLADDER", "BRAIN", "CHEST", "CHESTABDOMEN", "CHESTABDPELVIS", "COCCYX", "CSPINE", "HEAD"}
    | {"HEADNECK", "HEART", "JAW", "LIVER", "LSPINE", "MEDIASTINUM", "NECK", "NECKCHEST", "PANCREAS", "PELVIS", "PROSTATE"}
    | {"SKULL", "SPINE", "SPLEEN", "STERNUM", "THYROID", "TSPINE", "UTERUS", "WHOLEBODY"}
)


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


def say_body_part(dataset: Dataset, sources: Sources) -> None:
    """Body part and side of the source. Laterality is type 2C for parts that have sides (PS3.3 C.7.3.1): empty is "unknown"."""
    copy_body_part(dataset, sources)
    body_part = str(dataset.get("BodyPartExamined", "")).upper()
    if body_part not in UNPAIRED_BODY_PARTS and "Laterality" not in dataset:
        dataset.Laterality = ""
