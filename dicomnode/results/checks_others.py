"""Reads parametric maps and FHIR bundles back and holds them against the findings."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from dicomnode.domain.errors import ResultCheckFailed
from dicomnode.domain.findings import Box, Classification, Findings, Lesion
from dicomnode.results.parametric_map import frame_order
from dicomnode.results.source import Sources

REMEDY = "nothing was sent; keep the study and report this with the pipeline's name and version"
# What FHIR R4 demands of the resources that we write (cardinality 1..).
REQUIRED = {
    "Device": (),
    "DiagnosticReport": ("status", "code"),
    "Observation": ("status", "code"),
}
POSITION_TOLERANCE_MM = 0.01
TOLERANCE = 0.005  # of numbers that are written with two digits or more


def check_map(dataset: Dataset, findings: Findings, source: Sources) -> None:
    """Raises ResultCheckFailed unless every frame holds its slice of the heat map and lies where the source's slice lies."""
    number = int(dataset.InstanceNumber)
    if number > len(findings.heatmaps):
        raise ResultCheckFailed("PM shows a heat map that was not made", REMEDY)
    heat_map = findings.heatmaps[number - 1]
    rows, columns = heat_map.values.shape[1:]
    if (int(dataset.Rows), int(dataset.Columns), int(dataset.BitsAllocated)) != (rows, columns, 16):
        raise ResultCheckFailed("PM has another size than the heat map", REMEDY)
    mapping = _mapping(dataset)
    if not np.allclose((mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept), (heat_map.scale, heat_map.minimum)):
        raise ResultCheckFailed("PM has another scale than the heat map", REMEDY)
    count = int(dataset.NumberOfFrames)
    frames = np.frombuffer(dataset.PixelData, "<u2", count=count * rows * columns).reshape(count, rows, columns)
    order = frame_order(dataset, source)
    for frame, index in zip(frames, order, strict=True):
        if not np.array_equal(frame, heat_map.values[index] if index is not None else np.zeros_like(frame)):
            raise ResultCheckFailed("PM read back is not the heat map that the model made", REMEDY)
    _check_places(dataset, order, source)
    seen = len({index for index in order if index is not None})
    if seen != len(heat_map.values):
        raise ResultCheckFailed(f"PM lacks {len(heat_map.values) - seen} slices", REMEDY)


def _check_places(dataset: Dataset, order: Sequence[int | None], source: Sources) -> None:
    if str(dataset.get("FrameOfReferenceUID", "")) != source.frame_of_reference_uid:
        raise ResultCheckFailed("PM has another frame of reference than the source", REMEDY)
    for frame, index in zip(dataset.PerFrameFunctionalGroupsSequence, order, strict=True):
        own = None if index is None else source.position(index)
        if own is None or "PlanePositionSequence" not in frame:
            continue
        written = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        if np.abs(written - own).max() > POSITION_TOLERANCE_MM:
            raise ResultCheckFailed("PM lies elsewhere than the source", REMEDY)


def _mapping(dataset: Dataset) -> Any:
    shared, first = dataset.SharedFunctionalGroupsSequence[0], dataset.PerFrameFunctionalGroupsSequence[0]
    group = shared if "RealWorldValueMappingSequence" in shared else first
    return group.RealWorldValueMappingSequence[0]


def check_bundle(content: bytes, findings: Findings) -> None:
    """Raises ResultCheckFailed unless it is a bundle of R4 resources whose references resolve and whose numbers are ours."""
    try:
        bundle = json.loads(content)
        entries = {entry["fullUrl"]: entry["resource"] for entry in bundle["entry"]}
    except (ValueError, KeyError, TypeError):
        raise ResultCheckFailed("FHIR bundle cannot be read", REMEDY) from None
    for resource in entries.values():
        missing = [name for name in REQUIRED.get(resource["resourceType"], ("a known type",)) if not resource.get(name)]
        if missing:
            raise ResultCheckFailed(f"FHIR {resource['resourceType']} lacks {missing[0]}", REMEDY)
    unknown = set(_references(bundle["entry"])) - entries.keys()
    if unknown:
        raise ResultCheckFailed(f"FHIR bundle names {len(unknown)} resources that it does not hold", REMEDY)
    volumes = sorted(_values(entries, "118565006", "mL"))
    wanted = sorted(_volumes(findings))
    # A projection has no volumes.
    if volumes and (len(volumes) != len(wanted) or not np.allclose(volumes, wanted, rtol=0, atol=TOLERANCE)):
        raise ResultCheckFailed("FHIR volumes are not those of the findings", REMEDY)
    probabilities = sorted(_values(entries, "111047", "%"))
    named: list[Classification | Lesion | Box] = [*findings.classifications, *findings.lesions, *findings.boxes]
    stated = sorted(100 * one.probability for one in named)
    if len(probabilities) != len(stated) or not np.allclose(probabilities, stated, rtol=0, atol=TOLERANCE * 2):
        raise ResultCheckFailed("FHIR probabilities are not those of the findings", REMEDY)


def _volumes(findings: Findings) -> list[float]:
    lesions = {one.segment for one in findings.lesions}
    organs = [
        segment.volume_ml
        for one in findings.label_maps
        for segment in one.segments
        if segment.voxels and (one.name, segment.number) not in lesions
    ]
    return [*organs, *(one.volume_ml for one in findings.lesions)]


def _values(entries: dict[str, Any], code: str, unit: str) -> list[float]:
    """Quantities of that code, wherever an Observation holds them."""
    observations = [one for one in entries.values() if one["resourceType"] == "Observation"]
    places = [place for one in observations for place in (one, *one.get("component", ()))]
    return [
        float(place["valueQuantity"]["value"])
        for place in places
        if place["code"]["coding"][0]["code"] == code and place.get("valueQuantity", {}).get("code") == unit
    ]


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["reference"]] if isinstance(value.get("reference"), str) else []
        return own + [one for each in value.values() for one in _references(each)]
    if isinstance(value, list):
        return [one for each in value for one in _references(each)]
    return []
