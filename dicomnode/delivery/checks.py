"""What is looked at again just before an object leaves: are these the bytes that were checked, and still this patient's?"""

import json
from collections.abc import Mapping
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from dicomnode.delivery.folder import sha256_of
from dicomnode.domain.results import ResultObject

# What ties an object to a person and a study. Names are left out: the same name is written in more than one way.
IDENTITY_KEYWORDS = ("PatientID", "IssuerOfPatientID", "PatientBirthDate", "StudyInstanceUID")


def bytes_problem(path: Path, result: ResultObject) -> str:
    """Why these spooled bytes must not leave; "" if they are what results wrote. Raises OSError if they cannot be read now."""
    try:
        digest = sha256_of(path)
    except FileNotFoundError:
        return "the spooled object is gone"
    return "" if digest == result.sha256 else "the spooled object's bytes have changed since it was checked"


def identity_problem(path: Path, newest: Mapping[str, str], study_instance_uid: str) -> str:
    """Why the object may not leave under its patient; "" if it says what the newest header of its source says.

    newest: of the study's newest header version what it states, keyword → text.
    """
    if path.suffix == ".json":
        return _bundle_problem(path, newest, study_instance_uid)
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(IDENTITY_KEYWORDS))
    except (InvalidDicomError, ValueError) as error:
        return f"the spooled object cannot be read ({type(error).__name__})"
    now = {**newest, "StudyInstanceUID": study_instance_uid}
    differing = [key for key in IDENTITY_KEYWORDS if key in now and _text(header.get(key)) != now[key].strip()]
    if not differing:
        return ""
    return f"{' and '.join(differing)} of the object and of its study's newest header differ"


def _bundle_problem(path: Path, newest: Mapping[str, str], study_instance_uid: str) -> str:
    """The same for a FHIR bundle, whose resources name patient and study by identifier."""
    try:
        resources = [entry["resource"] for entry in json.loads(path.read_bytes())["entry"]]
        report = next(one for one in resources if one["resourceType"] == "DiagnosticReport")
        patient = report.get("subject", {}).get("identifier", {}).get("value", "")
        study = report["imagingStudy"][0]["identifier"]["value"]
    except (ValueError, LookupError, StopIteration, TypeError) as error:
        return f"the spooled object cannot be read ({type(error).__name__})"
    differing = []
    if "PatientID" in newest and patient.strip() != newest["PatientID"].strip():
        differing.append("PatientID")
    if study != f"urn:oid:{study_instance_uid}":
        differing.append("StudyInstanceUID")
    return f"{' and '.join(differing)} of the object and of its study's newest header differ" if differing else ""


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()
