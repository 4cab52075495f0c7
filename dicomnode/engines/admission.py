"""Whether a pipeline takes an image at all, by what `pipeline.toml` [input] says; before any pixel is looked at."""

from dicomnode.domain.imaging import Image2D, Refusal, RefusalCode, Volume
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
