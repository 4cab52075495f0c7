"""`pipeline.toml`: what the node must know about a bundle and a bundle cannot say of itself.

Every length is mm, every volume ml, every intensity in the unit of the input (HU for CT). Unknown keys are refused.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from dicomnode.domain.errors import PipelineError
from dicomnode.domain.findings import Code
from dicomnode.engines.rules import (
    AnomalyRules,
    BoxRules,
    ChainStep,
    CodedConcept,
    Color,
    DistributionRules,
    Fraction,
    HeadRules,
    HeatMapRules,
    NnunetRules,
    Platt,
    SeriesRole,
    Table,
    TrainedOn,
)

SIDECAR_NAME = "pipeline.toml"


class InputRules(Table):
    """Which series the pipeline takes. Anything else is refused by name, never squeezed into shape."""

    modality: str  # "*": any
    kind: Literal["volume", "image", "any"] = "volume"  # an image: one projection (CR, DX, MG …)
    unit: str = "[hnsf'U]"  # "": any
    min_slices: int = Field(default=1, ge=1)
    min_extent_mm: float = Field(default=0.0, ge=0)
    warn_slice_spacing_mm: float = Field(default=1000.0, gt=0)  # thicker: processed, with a warning that travels
    max_slice_spacing_mm: float = Field(default=1000.0, gt=0)  # thicker: refused
    max_voxels: int = Field(default=1_000_000_000, gt=0)


class IntensityRules(Table):
    """What a real CT of a body looks like in HU; shares are of all voxels inside the scan circle."""

    min_air_share: Fraction = 0.02  # below −700 HU
    min_tissue_share: Fraction = 0.05  # −250 … 300 HU
    max_dense_share: Fraction = 0.2  # above 700 HU: a rescale slope that was lost, metal, or no patient at all


class BundleRules(Table):
    """How the bundle's output is read. The bundle's own files say everything else.

    Its postprocessing is run only for `postprocess = "bundle"`. Otherwise `activation` stands for it, and the probabilities are
    interpolated to the source grid before the most probable channel is chosen.
    """

    weights: str = "models/model.safetensors"
    weights_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    image_key: str = "image"
    # What turns the network's output into probabilities; for "bundle" only where its postprocessing has neither Activationsd
    # nor AsDiscreted.
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    prediction_key: str = "pred"
    series: tuple[str, ...] = ()  # names of the series that make one input, as [[inputs]] has them
    series_as: Literal["channels", "keys"] = "channels"  # of image_key, in this order, or each under its own key
    image_channels: int = Field(default=1, ge=1, le=4)  # of a projection image: 3 gives grey as RGB


class BodyRules(Table):
    """Everything outside the largest body is set to `outside` before the network sees it."""

    threshold: float = -500.0
    outside: float = -1024.0


class RegionRules(Table):
    """Is this a chest? Checked on plain HU before the network runs, and on the network's lungs after it."""

    min_aerated_ml: float = Field(default=300.0, ge=0)  # lung-like tissue inside the body, before the network
    min_lung_ml: float = Field(default=600.0, ge=0)
    min_lung_extent_mm: float = Field(default=64.0, ge=0)  # along the body axis
    min_parenchyma_share: Fraction = 0.3  # of the lung map: between −970 and −500 HU (bowel gas and sinuses are emptier)
    min_lung_share_of_body: Fraction = 0.02


class SegmentRule(Table):
    """One output channel → one coded segment; `side` takes the half of the channel on that side of the patient."""

    label: str = Field(min_length=1, max_length=64)  # Segment Label is LO (PS3.5 6.2)
    channel: int = Field(ge=0)  # of the output; for "bundle" also the value in a label map
    side: Literal["", "left", "right"] = ""
    instances: bool = False  # each connected component is a segment and a finding of its own
    min_instance_ml: float = Field(default=0.0, ge=0)
    max_instances: int = Field(default=25, ge=1, le=250)  # the largest are reported
    category: CodedConcept
    type: CodedConcept
    anatomy: CodedConcept | None = None
    color: Color

    @model_validator(mode="before")
    @classmethod
    def _named_by_its_label(cls, given: Any) -> Any:
        """Codes and colour that are not given come from the label, as `coding` says."""
        if (
            not isinstance(given, dict)
            or not isinstance(given.get("label"), str)
            or {"category", "type", "color"} <= set(given)
        ):
            return given
        from dicomnode.engines.coding import color_of, concepts_of

        category, kind = concepts_of(given["label"])
        channel = given.get("channel")
        color = color_of(channel if isinstance(channel, int) else 0)
        return {"category": category, "type": kind, "color": color, **given}


class Calibration(Table):
    """From a lesion's score to its probability: logit(p) = slope × logit(score) + intercept (Platt scaling), plus what else
    speaks for or against it, each times its weight: a judge of candidates that people can read. `learning.judging` fits it.
    """

    slope: float = 1.0
    intercept: float = 0.0
    log_long_axis: float = 0.0  # natural logarithm of mm
    roundness: float = 0.0  # short by long axis
    mean: float = 0.0  # hundreds of the image's unit
    slice_spacing: float = 0.0  # mm


class DiffuseRule(Table):
    """When pale areas are a disease of the lung and no lesions: more than `more_than` of them, each of mean below `below`."""

    below: float  # in the image's unit
    more_than: int = Field(default=5, ge=1)


class LesionRules(Table):
    """Which components of the lesion channel become lesions, and how they are called."""

    channel: int = Field(ge=1)
    label: str = "Nodule"
    category: CodedConcept
    type: CodedConcept
    anatomy_left: CodedConcept | None = None
    anatomy_right: CodedConcept | None = None
    color: Color = (255, 200, 0)
    threshold: Fraction = 0.5  # voxels of the lesion channel at least this probable
    min_probability: Fraction = 0.5  # of a lesion, after calibration
    min_diameter_mm: float = Field(default=4.0, ge=0)
    max_diameter_mm: float = Field(default=100.0, gt=0)
    min_lung_contact: Fraction = 0.2  # share of the lesion's surface that lies at aerated lung
    score: Literal["max", "mean"] = "max"
    calibration: Calibration = Calibration()
    diffuse: DiffuseRule | None = None
    max_count: int = Field(default=25, ge=1, le=250)  # the label map is uint8


class ClassificationRules(Table):
    """One statement about the whole series, from its most probable lesion."""

    name: str = Field(min_length=1, max_length=64)
    finding: CodedConcept
    threshold: Fraction = 0.5
    present: CodedConcept = Code("52101004", "SCT", "Present")
    absent: CodedConcept = Code("272519000", "SCT", "Absent")


class ClassRule(Table):
    """One output channel of a classifier → one coded class."""

    label: str = Field(min_length=1, max_length=64)
    channel: int = Field(ge=0)
    code: CodedConcept
    threshold: Fraction = 0.5  # where classes do not exclude each other
    calibration: Platt = Platt()

    @model_validator(mode="before")
    @classmethod
    def _named_by_its_label(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("label"), str) and "code" not in given:
            from dicomnode.engines.coding import concepts_of

            return {"code": concepts_of(given["label"])[1], **given}
        return given


class StatementRules(Table):
    """What a classifier speaks of. Exclusive classes give one statement, the others one each: present or absent."""

    name: str = Field(min_length=1, max_length=64)
    finding: CodedConcept = Code("404684003", "SCT", "Clinical finding")
    exclusive: bool = True
    present: CodedConcept = Code("52101004", "SCT", "Present")
    absent: CodedConcept = Code("272519000", "SCT", "Absent")


class RunRules(Table):
    """How the network may be run at one speed. Each switch only for a model whose self-test allows it: Dice to the bundle's own
    way ≥ 0.995 for "exact", ≥ 0.99 for "fast" (networks with InstanceNorm fail it)."""

    bfloat16: bool = False  # where the machine computes it faster; a window of each is timed
    crop_margin_mm: float | None = Field(default=None, ge=0)  # run only the box of the wanted region, grown by this
    own_resampling: bool = False  # for "bundle": Orientationd, Spacingd and their inverse by the node's interpolation
    whole_volume_divisor: int | None = Field(default=None, ge=1)  # one window, padded to multiples of this
    whole_volume_max_voxels: int = Field(default=16_000_000, gt=0)  # larger: the bundle's own windows, for memory's sake


@dataclass(frozen=True, slots=True)
class ChestTables:
    """The tables that `postprocess = "chest"` demands."""

    body: BodyRules
    region: RegionRules
    lesions: LesionRules
    lung_channel: int


class Sidecar(Table):
    """The whole `pipeline.toml`."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")
    version: str = Field(pattern=r"^\d+\.\d+\.\d+([.+-][0-9A-Za-z.-]+)?$", max_length=32)
    title: str
    task: Literal["segmentation", "classification", "detection", "anomaly"]
    postprocess: Literal["chest", "segments", "bundle", "nnunet", "classical"]
    manufacturer: str = Field(min_length=1, max_length=64)
    intended_use: str = Field(min_length=1)
    demonstration: bool
    input: InputRules
    inputs: tuple[SeriesRole, ...] = ()  # of a model that reads several series together; the first is the one it answers on
    bundle: BundleRules = BundleRules()
    nnunet: NnunetRules = NnunetRules()
    intensities: IntensityRules | None = None
    body: BodyRules | None = None
    region: RegionRules | None = None
    segments: tuple[SegmentRule, ...] = ()
    lesions: LesionRules | None = None
    classification: ClassificationRules | None = None
    heatmap: HeatMapRules | None = None
    classes: tuple[ClassRule, ...] = ()
    statement: StatementRules | None = None
    boxes: BoxRules | None = None
    heads: tuple[HeadRules, ...] = ()
    anomaly: AnomalyRules | None = None
    chain: tuple[ChainStep, ...] = ()
    distribution: DistributionRules | None = None
    trained_on: TrainedOn | None = None
    exact: RunRules = RunRules()
    fast: RunRules = RunRules()

    @model_validator(mode="after")
    def _fits_together(self) -> "Sidecar":
        labels = [segment.label for segment in self.segments]
        if len(set(labels)) != len(labels):
            raise ValueError("two segments have the same label")
        if self.postprocess == "chest":
            self.chest_tables()
        if self.postprocess == "bundle":
            self._fits_its_task()
        elif self.postprocess == "classical":
            if not self.heads and not self.distribution:
                raise ValueError('postprocess = "classical" needs [[heads]] or [distribution]')
        elif self.input.kind != "volume":
            raise ValueError('only postprocess = "bundle" and "classical" take images')
        if self.postprocess in {"segments", "nnunet"} and not self.segments:
            raise ValueError(f'postprocess = "{self.postprocess}" needs [[segments]]')
        if self.postprocess != "chest" and any(segment.side for segment in self.segments):
            raise ValueError('only postprocess = "chest" knows sides')
        if self.classification and not self.lesions:
            raise ValueError("[classification] is made from lesions and needs the table [lesions]")
        if self.classification and self.lesions and self.classification.threshold < self.lesions.min_probability:
            # Otherwise the report could say "present" and show no lesion.
            raise ValueError("classification.threshold must not lie below lesions.min_probability")
        return self

    def _fits_its_task(self) -> None:
        wanted = {
            "segmentation": (self.segments, "[[segments]]"),
            "classification": (self.classes, "[[classes]]"),
            "detection": (self.boxes, "[boxes]"),
            "anomaly": (self.anomaly, "[anomaly]"),
        }
        table, named = wanted[self.task]
        if not table:
            raise ValueError(f'postprocess = "bundle" with task = "{self.task}" needs {named}')
        if self.input.kind == "image" and self.series:
            raise ValueError("bundle.series and [[inputs]] are for volumes")
        if self.inputs and self.bundle.series and self.bundle.series != tuple(one.name for one in self.inputs):
            raise ValueError("[[inputs]] and bundle.series must name the same series in the same order")

    @property
    def series(self) -> tuple[str, ...]:
        """Names of the series that make one input, the first being whose grid the answer lies on; () for a single one."""
        return self.bundle.series or tuple(one.name for one in self.inputs)

    @property
    def roles(self) -> tuple[SeriesRole, ...]:
        """Which of a study's series is which; where the file does not say, the name stands in the description."""
        if self.inputs or len(self.series) < 2:
            return self.inputs
        return tuple(SeriesRole(name=name, match={"SeriesDescription": (f"*{name}*",)}) for name in self.series)

    def chest_tables(self) -> ChestTables:
        """What a chest reading needs. Raises ValueError where it is not there."""
        if self.body is None or self.region is None or self.lesions is None:
            raise ValueError('postprocess = "chest" needs the tables [body], [region] and [lesions]')
        if sorted(segment.side for segment in self.segments) != ["left", "right"]:
            raise ValueError('postprocess = "chest" needs one segment with side = "left" and one with side = "right"')
        if any(segment.channel < 1 for segment in self.segments):
            raise ValueError("channel 0 is the background")
        if len({segment.channel for segment in self.segments}) != 1:
            raise ValueError("both lungs come from one channel")
        return ChestTables(self.body, self.region, self.lesions, self.segments[0].channel)


def read_sidecar(folder: Path) -> Sidecar:
    """The checked `pipeline.toml` of `folder`. Raises PipelineError that names every wrong key."""
    path = folder / SIDECAR_NAME
    try:
        return parsed_sidecar(path.read_text(encoding="utf-8"), path)
    except FileNotFoundError as error:
        raise PipelineError(
            f"{folder} has no {SIDECAR_NAME}", "add one; pipelines/chest_ct/pipeline.toml is an example"
        ) from error
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path} is not TOML: {error}", "correct the line that is named") from error


def parsed_sidecar(text: str, path: Path) -> Sidecar:
    """A `pipeline.toml` from its text; `path` names it in errors. Raises PipelineError that names every wrong key."""
    try:
        return Sidecar.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise PipelineError(f"{path} is not TOML: {error}", "correct the line that is named") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors())
        raise PipelineError(f"{path}: {wrong}", "correct these keys; pipelines/chest_ct/pipeline.toml is an example") from error
