"""Reads the numbers of a written report and holds them against the findings."""

from collections.abc import Iterator

from pydicom.dataset import Dataset

from dicomnode.domain.errors import ResultCheckFailed
from dicomnode.domain.findings import Classification, Findings, Lesion
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.results.source import Sources

REMEDY = "nothing was sent; keep the study and report this with the pipeline's name and version"
MEASUREMENT_GROUP, TRACKING_IDENTIFIER, TRACKING_UID = "125007", "112039", "112040"
VOLUME, LONG_AXIS, SHORT_AXIS, CERTAINTY = "118565006", "103339001", "103340004", "111012"
MEAN, STANDARD_DEVIATION, DERIVATION, FINDING = "373098007", "386136009", "121401", "121071"
# Half of the last decimal that is written (sr_groups), and the limits of binary fractions.
TOLERANCES = {VOLUME: 0.0006, LONG_AXIS: 0.006, SHORT_AXIS: 0.006, MEAN: 0.06, STANDARD_DEVIATION: 0.06, CERTAINTY: 0.006}


def check_report(dataset: Dataset, findings: Findings, _image: Volume | Image2D, _source: Sources) -> None:
    """Raises ResultCheckFailed unless the report holds every lesion and statement with its numbers, and no other group."""
    groups = list(_groups(dataset))
    lesions = {lesion.tracking_uid: lesion for lesion in findings.lesions}
    statements = {statement.name: statement for statement in findings.classifications}
    for group in groups:
        uid, name = _value_of(group, TRACKING_UID), _value_of(group, TRACKING_IDENTIFIER)
        if uid in lesions:
            _check_lesion(group, lesions.pop(uid))
        elif name in statements:
            _check_statement(group, statements.pop(name))
        elif findings.lesions or findings.classifications:
            raise ResultCheckFailed("SR holds a measurement group that the findings do not", REMEDY)
    if lesions or statements:
        raise ResultCheckFailed(f"SR lacks {len(lesions)} lesions and {len(statements)} statements", REMEDY)
    if dataset.VerificationFlag != "UNVERIFIED":
        raise ResultCheckFailed("SR claims that a person verified it", REMEDY)


def _check_lesion(group: Dataset, lesion: Lesion) -> None:
    if _value_of(group, TRACKING_IDENTIFIER) != lesion.tracking_id:
        raise ResultCheckFailed(f"SR: tracking identifier of {lesion.label} differs from the findings", REMEDY)
    expected = {
        VOLUME: lesion.volume_ml,
        LONG_AXIS: lesion.long_axis_mm,
        SHORT_AXIS: lesion.short_axis_mm,
        MEAN: lesion.mean,
        STANDARD_DEVIATION: lesion.std,
        CERTAINTY: lesion.probability * 100,
    }
    _check_numbers(group, expected, lesion.label)


def _check_statement(group: Dataset, statement: Classification) -> None:
    _check_numbers(group, {CERTAINTY: statement.probability * 100}, statement.name)
    finding = _value_of(group, statement.finding.value)
    if finding != statement.value_code.value:
        raise ResultCheckFailed(f"SR: {statement.name} has another value than the findings", REMEDY)


def _check_numbers(group: Dataset, expected: dict[str, float], what: str) -> None:
    written = _numbers(group)
    for code, value in expected.items():
        if code not in written or abs(written[code] - value) > TOLERANCES[code]:
            raise ResultCheckFailed(f"SR: a number of {what} differs from the findings", REMEDY)


def _groups(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", []):
        if _name(child) == MEASUREMENT_GROUP:
            yield child
        yield from _groups(child)


def _numbers(group: Dataset) -> dict[str, float]:
    """Concept → value; statistics of an intensity by the concept of their derivation."""
    numbers = {}
    for child in group.ContentSequence:
        if child.ValueType == "NUM":
            derivation = next((one for one in child.get("ContentSequence", []) if _name(one) == DERIVATION), None)
            code = _name(child) if derivation is None else str(derivation.ConceptCodeSequence[0].CodeValue)
            numbers[code] = float(child.MeasuredValueSequence[0].NumericValue)
    return numbers


def _value_of(group: Dataset, concept: str) -> str:
    for child in group.ContentSequence:
        if _name(child) == concept:
            if child.ValueType == "CODE":
                return str(child.ConceptCodeSequence[0].CodeValue)
            return str(child.get("TextValue") or child.get("UID") or "")
    return ""


def _name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue) if "ConceptNameCodeSequence" in item else ""
