"""Concepts, units and decimals of the report."""

from typing import Any

import highdicom as hd
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as DicomCode

LONG_AXIS = codes.SCT.LongAxis
SHORT_AXIS = codes.SCT.ShortAxis
VOLUME = codes.SCT.Volume
AREA = codes.SCT.Area
CERTAINTY = codes.DCM.CertaintyOfFinding
ATTENUATION = codes.DCM.AttenuationCoefficient
INTENSITY = codes.cid7469.MRSignalIntensity
MEAN = codes.SCT.Mean
STANDARD_DEVIATION = codes.SCT.StandardDeviation
COMMENT = DicomCode("121106", "DCM", "Comment")
LATERALITY = {"left": codes.SCT.Left, "right": codes.SCT.Right}
# Body Part Examined whose sides a model may tell apart (PS3.16 Annex L).
REGIONS = {
    "CHEST": codes.SCT.Chest,
    "THORAX": codes.SCT.Chest,
    "LUNG": codes.SCT.Lung,
    "BREAST": codes.SCT.Breast,
    "HEAD": codes.SCT.Head,
    "BRAIN": codes.SCT.Brain,
    "NECK": codes.SCT.Neck,
    "ABDOMEN": codes.SCT.Abdomen,
    "KIDNEY": codes.SCT.Kidney,
    "PELVIS": codes.SCT.Pelvis,
}
# The modalities' own codes (CID 29) and procedures where the source names none (CID 100).
MODALITIES = {
    "CT": codes.cid29.ComputedTomography,
    "MR": codes.cid29.MagneticResonance,
    "CR": codes.cid29.ComputedRadiography,
    "DX": codes.cid29.DigitalRadiography,
    "PT": codes.cid29.PositronEmissionTomography,
}

MILLILITRE = DicomCode("mL", "UCUM", "mL")
MILLIMETRE = DicomCode("mm", "UCUM", "mm")
SQUARE_MILLIMETRE = DicomCode("mm2", "UCUM", "mm2")
PIXELS = DicomCode("{pixels}", "UCUM", "pixels")
PERCENT = DicomCode("%", "UCUM", "%")
INTENSITY_UNITS = {"[hnsf'U]": DicomCode("[hnsf'U]", "UCUM", "Hounsfield unit")}
NO_UNIT = DicomCode("1", "UCUM", "no units")

# Decimals written: finer than any model is right, coarse enough to be read.
ML_DECIMALS, MM_DECIMALS, INTENSITY_DECIMALS, PERCENT_DECIMALS, AREA_DECIMALS = 3, 2, 1, 2, 2

# OHIF (Cornerstone3D) takes over only what names the tool that can draw it.
VIEWER_TOOL = "Cornerstone3DTools@^0.1.0:PlanarFreehandROI"
VIEWER_NOTE = "Cornerstone3DTools@^0.1.0:ArrowAnnotate"


def certainty(probability: float, algorithm: Any = None) -> Any:
    """A probability as a number of its own."""
    value = round(probability * 100, PERCENT_DECIMALS)
    return hd.sr.Measurement(name=CERTAINTY, value=value, unit=PERCENT, algorithm_id=algorithm)


def intensity_unit(unit: str) -> DicomCode:
    """Unit of mean and standard deviation, from UCUM text."""
    return INTENSITY_UNITS.get(unit, NO_UNIT if unit in ("", "1") else DicomCode(unit, "UCUM", unit))
