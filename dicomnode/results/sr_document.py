"""What every report of ours is: an SR, unverified, observed by the algorithm (PS3.16 TID 1001, 1004).

Comprehensive 3D SR, or Comprehensive SR where a destination cannot take that.
"""

from typing import Any

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as DicomCode

from dicomnode.domain.equipment import MANUFACTURER, MODEL_NAME
from dicomnode.domain.profiles import ResultKind, SrClass
from dicomnode.results import equipment
from dicomnode.results.context import Context
from dicomnode.results.source import restore_identity

PROCEDURES = {
    "CT": codes.cid100.CTUnspecifiedBodyRegion,
    "MR": codes.cid100.MRIUnspecifiedBodyRegion,
    "CR": codes.cid100.XRUnspecifiedBodyRegion,
    "DX": codes.cid100.XRUnspecifiedBodyRegion,
    "PT": codes.cid100.PETUnspecifiedBodyRegion,
}


def device_context(context: Context) -> Any:
    """TID 1002, 1004: the algorithm as the observing device."""
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=equipment.device_uid(context.model, context.request.uid_root),
        name=MODEL_NAME,
        manufacturer_name=context.model.manufacturer or MANUFACTURER,
        model_name=context.model.name,
        serial_number=equipment.device_serial_number(context.model),
    )
    return hd.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)


# Our coordinates lie in images (SCOORD), so that the same content is right in both.
CLASSES = {SrClass.COMPREHENSIVE_3D: hd.sr.Comprehensive3DSR, SrClass.COMPREHENSIVE: hd.sr.ComprehensiveSR}


def observer(context: Context) -> Any:
    """TID 1001: who observed."""
    return hd.sr.ObservationContext(observer_device_context=device_context(context))


def procedure_reported(context: Context) -> Any:
    """The imaging procedure: the source's own code, else what the modality says (CID 100)."""
    header = context.sources.headers[0]
    for item in header.get("ProcedureCodeSequence") or []:
        if item.get("CodeValue") and item.get("CodingSchemeDesignator") and item.get("CodeMeaning"):
            return DicomCode(item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning)
    return PROCEDURES.get(str(header.get("Modality", "")), codes.cid100.ImagingProcedure)


def make_document(context: Context, content: Any, evidence: list[Dataset], what: str) -> Any:
    """An SR of the profile's class around a content tree: complete, not final, not verified by anybody."""
    kind = ResultKind.SR
    dataset = CLASSES[context.profile.sr_class](
        evidence=evidence,
        content=content,
        series_instance_uid=context.uid(kind, "series"),
        series_number=context.series_number(kind),
        sop_instance_uid=context.uid(kind, "instance"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=equipment.software_versions(context.model),
        device_serial_number=equipment.device_serial_number(context.model),
        is_complete=True,
        is_final=False,
        is_verified=False,
        previous_versions=_predecessors(context),
        series_description=context.description(what),
        contributing_equipment=equipment.contributing_equipment(context.model, context.moment, context.request.uid_root),
    )
    restore_identity(dataset, context.sources, context.profile.character_set)
    return dataset


def _predecessors(context: Context) -> list[Dataset] | None:
    predecessor = context.request.predecessor
    if predecessor is None:
        return None
    earlier = Dataset()
    earlier.StudyInstanceUID = context.sources.study_instance_uid
    earlier.SeriesInstanceUID = predecessor.sr_series_instance_uid
    earlier.SOPClassUID = predecessor.sr_sop_class_uid
    earlier.SOPInstanceUID = predecessor.sr_sop_instance_uid
    return [earlier]
