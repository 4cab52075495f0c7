"""Who made a result: device, algorithm, intended use (PS3.3 C.12.1.1.5, C.7.5.2; PS3.16 TID 1004, TID 4019)."""

from datetime import datetime

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicomnode import __version__
from dicomnode.domain.equipment import CONTRIBUTION_DESCRIPTION, MANUFACTURER, MODEL_NAME
from dicomnode.domain.findings import Findings, ModelIdentity
from dicomnode.domain.imaging import Refusal
from dicomnode.domain.results import ResultRequest
from dicomnode.domain.uids import derived_uid

DEMONSTRATION_NOTICE = "DEMONSTRATION - NOT FOR CLINICAL USE"
CLINICAL_NOTICE = "AI result, to be confirmed by a physician"
ALGORITHM_DESCRIPTION = "AI algorithm"
# PS3.7 D.3.3.2: names the software that wrote the file, the same for every result.
IMPLEMENTATION_CLASS_UID = derived_uid(("implementation class",))
IMPLEMENTATION_VERSION_NAME = f"DICOMNODE_{__version__}"[:16]


def model_of(outcome: Findings | Refusal, request: ResultRequest) -> ModelIdentity:
    """The model that spoke; for a refusal the one that the request names, else what pipeline and version say."""
    if isinstance(outcome, Findings):
        return outcome.model
    if request.model is not None:
        return request.model
    return ModelIdentity(
        name=request.pipeline,
        version=request.pipeline_version,
        digest="",
        manufacturer=MANUFACTURER,
        intended_use="",
        demonstration=request.demonstration,
    )


def notice_for(demonstration: bool) -> str:
    """The sentence that every page and report carries."""
    return DEMONSTRATION_NOTICE if demonstration else CLINICAL_NOTICE


def facts_of(model: ModelIdentity) -> tuple[str, ...]:
    """What a reader may hold a result against, in sentences: which weights spoke, what they are for, what their card says."""
    weights = f", SHA-256 {model.digest[:16]}" if model.digest else ""
    maker = f", by {model.manufacturer}" if model.manufacturer else ""
    said = [f"Model {model.name} {model.version}{weights}{maker}"]
    said += [f"Intended use: {model.intended_use}"] if model.intended_use else []
    said += [f"Model card: {model.card}"] if model.card else []
    return tuple(one if one.endswith(".") else f"{one}." for one in said)


def device_uid(model: ModelIdentity, root: str | None = None) -> str:
    """The UID of the algorithm as a device: other weights, another device."""
    return derived_uid(("device", model.name, model.version, model.digest), root=root)


def device_serial_number(model: ModelIdentity) -> str:
    """Type 1 in Enhanced General Equipment (PS3.3 C.7.5.2): which weights spoke."""
    return model.digest[:16] or f"{model.name} {model.version}"[:64]


def software_versions(model: ModelIdentity) -> list[str]:
    """Ours and the model's, as Software Versions (0018,1020)."""
    return [f"{MODEL_NAME} {__version__}"[:64], f"{model.name} {model.version}"[:64]]


def contributing_equipment(model: ModelIdentity, moment: datetime, root: str | None = None) -> list[Dataset]:
    """Two items: this node, by which receiving knows its own results again, and the algorithm with its device UID."""
    node = hd.ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=MODEL_NAME,
        software_versions=__version__,
        contribution_datetime=moment,
        contribution_description=CONTRIBUTION_DESCRIPTION,
    )
    algorithm = hd.ContributingEquipment(
        manufacturer=(model.manufacturer or MANUFACTURER)[:64],
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=model.name[:64],
        software_versions=model.version[:64],
        device_serial_number=device_serial_number(model),
        contribution_datetime=moment,
        contribution_description=ALGORITHM_DESCRIPTION,
    )
    algorithm.DeviceUID = device_uid(model, root)
    return [node, algorithm]


def algorithm_sequence(model: ModelIdentity) -> hd.AlgorithmIdentificationSequence:
    """Algorithm Identification Macro (PS3.3 10.16) for segments."""
    return hd.AlgorithmIdentificationSequence(
        name=model.name,
        family=codes.cid7162.ArtificialIntelligence,
        version=model.version,
        source=model.manufacturer or MANUFACTURER,
    )
