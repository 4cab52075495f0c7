"""Whether a pipeline takes an image at all, by what `pipeline.toml` [input] says; before any pixel is looked at."""

from fnmatch import fnmatchcase

from dicomnode.domain.imaging import HeaderSummary, Image2D, Refusal, RefusalCode, Volume
from dicomnode.engines.rules import TrainedOn
from dicomnode.engines.sidecar import InputRules

_OTHER_ROUTE = "correct the route that chose this series"


def refuse_input(image: Volume | Image2D, rules: InputRules) -> Refusal | None:
    """A refusal for the wrong modality, a projection, or a stack that is too short, too coarse or too large."""
    if rules.modality not in ("*", image.headers.modality):
        modality = image.headers.modality or "unknown"
        return Refusal(RefusalCode.WRONG_MODALITY, f"modality is {modality}, {rules.modality} expected", _OTHER_ROUTE)
    if isinstance(image, Image2D) and rules.kind != "volume":
        return None
    if isinstance(image, Image2D):
        return Refusal(RefusalCode.UNSUPPORTED_CLASS, "a single projection image, a volume expected", _OTHER_ROUTE)
    if rules.kind == "image":
        return Refusal(RefusalCode.UNSUPPORTED_CLASS, "a volume, a single projection image expected", _OTHER_ROUTE)
    if rules.unit and image.unit != rules.unit:
        return Refusal(
            RefusalCode.OUT_OF_DISTRIBUTION,
            f"values are in {image.unit or 'an unknown unit'}, {rules.unit} expected",
            _OTHER_ROUTE,
        )
    return _refuse_extent(image, rules)


def input_warnings(image: Volume | Image2D, rules: InputRules) -> tuple[str, ...]:
    """What the reader of a result must know of this input."""
    if isinstance(image, Image2D):
        return ()
    spacing_mm = image.spacing_mm[0]
    if spacing_mm <= rules.warn_slice_spacing_mm:
        return ()
    limit = f"above {rules.warn_slice_spacing_mm:g} mm small lesions are missed and measures are coarse"
    return (f"slices are {spacing_mm:.1f} mm apart; {limit}",)


def outside_the_card(headers: HeaderSummary, card: TrainedOn | None) -> tuple[str, ...]:
    """What of the input lies outside what the model card says of the training data, one sentence each; they travel.

    A header that is silent says nothing, but for contrast: a series without Contrast/Bolus Agent (0018,0010) counts as native.
    """
    if card is None:
        return ()
    found = []
    kernel, thickness, age = headers.convolution_kernel, headers.slice_thickness_mm, age_years(headers.patient_age)
    if card.kernels and kernel and not _fits(kernel, card.kernels):
        found.append(f"the kernel {kernel} is none that the model was trained on ({', '.join(card.kernels)})")
    if card.slice_thickness_mm and thickness is not None and not _within(thickness, card.slice_thickness_mm):
        low, high = card.slice_thickness_mm
        found.append(f"slices are {thickness:g} mm thick, the model was trained on {low:g} to {high:g} mm")
    if card.contrast == "with" and not headers.contrast_agent:
        found.append("no contrast agent is stated, the model was trained on enhanced series")
    if card.contrast == "without" and headers.contrast_agent:
        found.append("a contrast agent is stated, the model was trained on native series")
    if card.age_years and age is not None and not _within(age, card.age_years):
        low, high = card.age_years
        found.append(f"the patient is {age:g} years old, the model was trained on patients of {low:g} to {high:g}")
    if card.sexes and headers.patient_sex and headers.patient_sex not in card.sexes:
        found.append(f"the patient's sex is {headers.patient_sex}, the model was trained on {', '.join(card.sexes)}")
    if card.manufacturers and headers.manufacturer and not _fits(headers.manufacturer, card.manufacturers):
        found.append(f"the scanner is by {headers.manufacturer}, none that the model was trained on")
    return tuple(f"outside the model card: {one}" for one in found)


def age_years(text: str) -> float | None:
    """Years of a DICOM age string ("045Y", "018M", "003W", "010D"; PS3.5 6.2); None for anything else."""
    units = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
    text = text.strip().upper()
    return round(int(text[:-1]) * units[text[-1]], 2) if text[:-1].isdigit() and text[-1] in units else None


def _fits(text: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(text.strip().upper(), pattern.upper()) for pattern in patterns)


def _within(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


def _refuse_extent(image: Volume, rules: InputRules) -> Refusal | None:
    slices, spacing_mm = image.shape[0], image.spacing_mm[0]
    extent_mm = slices * spacing_mm
    if slices < rules.min_slices:
        return Refusal(RefusalCode.TOO_FEW, f"{slices} slices, at least {rules.min_slices} expected", "send the whole series")
    if extent_mm < rules.min_extent_mm:
        return Refusal(
            RefusalCode.TOO_FEW,
            f"{slices} slices cover {extent_mm:.0f} mm, at least {rules.min_extent_mm:g} mm expected",
            "send the whole series",
        )
    if spacing_mm > rules.max_slice_spacing_mm:
        return Refusal(
            RefusalCode.OUT_OF_DISTRIBUTION,
            f"slices are {spacing_mm:.1f} mm apart, at most {rules.max_slice_spacing_mm:g} mm allowed",
            "send a thinner reconstruction of this scan",
        )
    voxels = image.pixels.size
    if voxels > rules.max_voxels:
        return Refusal(
            RefusalCode.TOO_MANY, f"{voxels} voxels, at most {rules.max_voxels} allowed", "send a thicker reconstruction"
        )
    return None
