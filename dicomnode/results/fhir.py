"""FHIR R4 (4.0.1): a DiagnosticReport with its Observations and the algorithm as Device, as one transaction Bundle.

Ids are made of the same parts as UIDs, and entries are PUT: what is posted twice is there once.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any

from dicomnode.domain.equipment import MANUFACTURER
from dicomnode.domain.findings import Box, Classification, Code, Findings, Lesion, Segment
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.domain.profiles import ResultKind
from dicomnode.results import equipment
from dicomnode.results.context import Context
from dicomnode.results.documents import Document
from dicomnode.results.wording import capitalized, percent

# https://terminology.hl7.org/external_terminologies.html: what FHIR calls DICOM's coding schemes.
SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "LN": "http://loinc.org",
    "RADLEX": "http://radlex.org",
    "UMLS": "http://terminology.hl7.org/CodeSystem/umls",
    "UCUM": "http://unitsofmeasure.org",
}
UCUM = SYSTEMS["UCUM"]
REPORT = Code("18748-4", "LN", "Diagnostic imaging study")
VOLUME = Code("118565006", "SCT", "Volume")
LONG_AXIS = Code("103339001", "SCT", "Long axis")
SHORT_AXIS = Code("103340004", "SCT", "Short axis")
MEAN = Code("373098007", "SCT", "Mean")
CERTAINTY = Code("111047", "DCM", "Probability of abnormality")
LATERALITY = {"left": Code("7771000", "SCT", "Left"), "right": Code("24028007", "SCT", "Right")}
UNCODED_FINDING = Code("404684003", "SCT", "Clinical finding")


def build_bundle(
    context: Context, findings: Findings, image: Volume | Image2D, built: Mapping[ResultKind, Sequence[Any]]
) -> list[Document]:
    """One bundle as canonical JSON."""
    bundle = _Bundle(context)
    device = bundle.add("Device", _device(context))
    results = [
        *(bundle.observation(device, _statement(one)) for one in findings.classifications),
        *(bundle.observation(device, _lesion(one, image, findings)) for one in findings.lesions),
        *(bundle.observation(device, _box(one)) for one in findings.boxes),
        *(bundle.observation(device, one) for one in _organs(findings, image)),
    ]
    bundle.add("DiagnosticReport", _report(context, findings, bundle, results, built))
    kind = ResultKind.FHIR
    return [Document(context.uid(kind, "instance"), context.uid(kind, "series"), context.description("FHIR"), bundle.content())]


class _Bundle:
    """Resources in the making; knows what all of them name: patient, study, moment."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._entries: list[dict[str, Any]] = []
        identity = context.sources.identity
        patient_id = str(identity.get("PatientID") or "")
        self.subject = {"subject": _patient(patient_id, str(identity.get("IssuerOfPatientID") or ""))} if patient_id else {}
        study = {"system": "urn:dicom:uid", "value": f"urn:oid:{context.sources.study_instance_uid}"}
        self.study = {"type": "ImagingStudy", "identifier": study}
        moment = study_moment(identity, context.moment.tzinfo)
        self.effective = {"effectiveDateTime": moment} if moment else {}

    def add(self, resource_type: str, content: dict[str, Any]) -> str:
        """Adds a resource; its address within the bundle."""
        name = _uuid(self._context.uid(ResultKind.FHIR, resource_type, str(len(self._entries))))
        resource = {"resourceType": resource_type, "id": name, **content}
        request = {"method": "PUT", "url": f"{resource_type}/{name}"}
        self._entries.append({"fullUrl": f"urn:uuid:{name}", "resource": resource, "request": request})
        return f"urn:uuid:{name}"

    def observation(self, device: str, content: dict[str, Any]) -> str:
        """Adds an observation made by the device on the study: preliminary, for nobody has confirmed it."""
        category = {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "imaging"}
        return self.add("Observation", {
            "status": "preliminary",
            "category": [{"coding": [category]}],
            **self.subject,
            **self.effective,
            "issued": self._context.moment.isoformat(timespec="seconds"),
            "device": {"reference": device},
            "derivedFrom": [self.study],
            "note": [{"text": self._context.notice}],
            **content,
        })  # fmt: skip

    def content(self) -> bytes:
        """The bundle as JSON, the same for the same resources."""
        bundle = {
            "resourceType": "Bundle",
            "id": _uuid(self._context.uid(ResultKind.FHIR, "instance")),
            "type": "transaction",
            "timestamp": self._context.moment.isoformat(timespec="seconds"),
            "entry": self._entries,
        }
        return json.dumps(bundle, ensure_ascii=False, indent=1).encode()


def _report(
    context: Context, findings: Findings, bundle: _Bundle, results: list[str], built: Mapping[ResultKind, Sequence[Any]]
) -> dict[str, Any]:
    identity = context.sources.identity
    identifiers = [
        {"system": "urn:dicom:uid", "value": f"urn:oid:{one.SOPInstanceUID}"} for one in built.get(ResultKind.SR, ())
    ]
    accession = str(identity.get("AccessionNumber") or "")
    kind = {"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}
    order = {"type": "ServiceRequest", "identifier": {"type": {"coding": [kind]}, "value": accession}}
    return {
        **({"identifier": identifiers} if identifiers else {}),
        **({"basedOn": [order]} if accession else {}),
        "status": "preliminary",
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD"}]}],
        "code": _concept(REPORT),
        **bundle.subject,
        **bundle.effective,
        "issued": context.moment.isoformat(timespec="seconds"),
        **({"result": [{"reference": one} for one in results]} if results else {}),
        "imagingStudy": [bundle.study],
        "conclusion": _conclusion(context, findings),
    }


def _conclusion(context: Context, findings: Findings) -> str:
    """Never empty and never read as more than it is."""
    model = context.model
    sentences = [f"{context.notice}. AI {model.name} {model.version}."]
    sentences += [
        f"{capitalized(one.name)}: {one.value}, probability {percent(one.probability)} (threshold {percent(one.threshold)})."
        for one in findings.classifications
    ]
    if findings.lesions or findings.boxes:
        sentences.append(f"{len(findings.lesions) + len(findings.boxes)} findings.")
    elif findings.lesions_sought:
        sentences.append("No lesion reported.")
    sentences += [f"Note: {capitalized(one)}." for one in findings.warnings]
    return " ".join(sentences)


def _device(context: Context) -> dict[str, Any]:
    model = context.model
    return {
        "identifier": [{
            "system": "urn:ietf:rfc:3986", "value": f"urn:oid:{equipment.device_uid(model, context.request.uid_root)}"
        }],
        "manufacturer": model.manufacturer or MANUFACTURER,
        "deviceName": [{"name": model.name, "type": "model-name"}],
        "version": [{"value": model.version}],
        "serialNumber": equipment.device_serial_number(model),
        "note": [{"text": context.notice}],
    }  # fmt: skip


def _statement(one: Classification) -> dict[str, Any]:
    return {
        "code": _concept(one.finding, one.name),
        "valueCodeableConcept": _concept(one.value_code, one.value),
        "component": [_component(CERTAINTY, one.probability * 100, "%", "%", 2)],
    }


def _lesion(lesion: Lesion, image: Volume | Image2D, findings: Findings) -> dict[str, Any]:
    segment = _segment_of(lesion, findings)
    unit = image.unit if isinstance(image, Volume) else ""
    components = []
    if isinstance(image, Volume):
        components.append(_component(VOLUME, lesion.volume_ml, "mL", "mL", 4))
    if isinstance(image, Volume) or image.pixel_spacing_mm is not None:
        components += [
            _component(LONG_AXIS, lesion.long_axis_mm, "mm", "mm", 2),
            _component(SHORT_AXIS, lesion.short_axis_mm, "mm", "mm", 2),
        ]
    if unit:
        components.append(_component(MEAN, lesion.mean, "HU" if unit == "[hnsf'U]" else unit, unit, 2))
    components.append(_component(CERTAINTY, lesion.probability * 100, "%", "%", 2))
    return {
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{lesion.tracking_uid}"}],
        "code": _concept(segment.type if segment else UNCODED_FINDING, lesion.label),
        **_site(lesion, segment),
        "component": components,
    }


def _site(lesion: Lesion, segment: Segment | None) -> dict[str, Any]:
    """The organ with its side in words: a body site has one concept, and a side alone is none where the organ is known."""
    side = LATERALITY.get(lesion.laterality)
    if segment is not None and segment.anatomy is not None:
        anatomy = segment.anatomy
        text = f"{anatomy.meaning} ({lesion.laterality})" if side else anatomy.meaning
        return {"bodySite": _concept(anatomy, text)}
    return {"bodySite": _concept(side)} if side else {}


def _box(box: Box) -> dict[str, Any]:
    return {
        "code": _concept(UNCODED_FINDING, box.label),
        "component": [_component(CERTAINTY, box.probability * 100, "%", "%", 2)],
    }


def _organs(findings: Findings, image: Volume | Image2D) -> list[dict[str, Any]]:
    """Volumes of the segments that are no lesion; a projection has none."""
    if not isinstance(image, Volume):
        return []
    lesions = {lesion.segment for lesion in findings.lesions}
    return [
        {
            "code": _concept(VOLUME, f"Volume of {segment.label}"),
            "bodySite": _concept(segment.type, segment.label),
            "valueQuantity": _quantity(segment.volume_ml, "mL", "mL", 3),
        }
        for one in findings.label_maps
        for segment in one.segments
        if segment.voxels and (one.name, segment.number) not in lesions
    ]


def _segment_of(lesion: Lesion, findings: Findings) -> Segment | None:
    return next(
        (segment for one in findings.label_maps for segment in one.segments if lesion.segment == (one.name, segment.number)),
        None,
    )


def _concept(code: Code, text: str = "") -> dict[str, Any]:
    coding = {"code": code.value, "display": code.meaning}
    if code.scheme in SYSTEMS:
        coding["system"] = SYSTEMS[code.scheme]
    return {"coding": [coding], "text": text or code.meaning}


def _component(code: Code, value: float, unit: str, ucum: str, digits: int) -> dict[str, Any]:
    return {"code": _concept(code), "valueQuantity": _quantity(value, unit, ucum, digits)}


def _quantity(value: float, unit: str, ucum: str, digits: int) -> dict[str, Any]:
    return {"value": round(float(value), digits), "unit": unit, "system": UCUM, "code": ucum}


def _patient(patient_id: str, issuer: str) -> dict[str, Any]:
    identifier: dict[str, Any] = {"value": patient_id}
    if issuer:
        identifier["assigner"] = {"display": issuer}
    return {"type": "Patient", "identifier": identifier}


def study_moment(identity: Any, zone: tzinfo | None) -> str:
    """Study Date and Time as FHIR dateTime, local with its offset; the date alone, or "", where the source says no more."""
    date, time = str(identity.get("StudyDate") or ""), str(identity.get("StudyTime") or "").split(".")[0]
    try:
        day = datetime.strptime(date, "%Y%m%d").replace(tzinfo=zone)
    except ValueError:
        return ""
    try:
        return datetime.strptime(date + time, "%Y%m%d%H%M%S").replace(tzinfo=zone).isoformat(timespec="seconds")
    except ValueError:
        return day.date().isoformat()


def _uuid(uid: str) -> str:
    """A name that FHIR allows as id (RFC 4122), from one of our UIDs."""
    return str(uuid.UUID(bytes=hashlib.sha256(uid.encode()).digest()[:16], version=5))
