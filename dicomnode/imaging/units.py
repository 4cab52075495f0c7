"""What a volume's values are measured in (UCUM): from Modality, Rescale Type (PS3.3 C.11.1.1.2), Units of PET (C.8.9.1.1.3)."""

from dicomnode.imaging.headers import Frame

HOUNSFIELD = "[hnsf'U]"
NO_UNIT = "1"
AIR_HU = -1024
HIGHEST_USUAL_HU = 3071  # of the 12-bit scale: −1024 … 3071

_RESCALE_TYPES = {"HU": HOUNSFIELD, "HU_MOD": HOUNSFIELD, "MRAD": "mrad", "MM2/S": "mm2/s", "10^-6 MM2/S": "um2/s"}
_PET_UNITS = {"BQML": "Bq/ml", "GML": "g/ml", "CNTS": "{counts}", "PROPCNTS": "{propcounts}", "CM2ML": "cm2/ml", "PCNT": "%"}


def unit_of(frame: Frame) -> tuple[str, tuple[str, ...]]:
    """The unit and, where the header does not settle it, a warning."""
    instance, said = frame.instance, frame.instance.units.upper()
    if instance.headers.modality == "PT":
        return _PET_UNITS.get(said, NO_UNIT), ()
    if instance.headers.modality != "CT":
        return _RESCALE_TYPES.get(said, NO_UNIT), ()
    if said in ("", "HU", "HU_MOD"):
        return HOUNSFIELD, ()  # Rescale Type is required only if it is not HU (PS3.3 C.8.2.1)
    if said == "US" and "DERIVED" not in frame.distinctions["ImageType"].upper():
        # ITK writes US, "unspecified", whatever it writes.
        return HOUNSFIELD, ("Rescale Type says US (unspecified); the values were taken for Hounsfield units",)
    return _RESCALE_TYPES.get(said, NO_UNIT), (f"CT values whose Rescale Type is {said}, not HU",)
