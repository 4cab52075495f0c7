"""Tables of `pipeline.toml` that every kind of pipeline may have, and what they are made of."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from dicomnode.domain.findings import Code


def _code(value: object) -> object:
    """A code is written as ["27925004", "SCT", "Nodule"]."""
    return Code(*value) if isinstance(value, list) and len(value) == 3 and all(isinstance(v, str) for v in value) else value


CodedConcept = Annotated[Code, BeforeValidator(_code)]
Color = tuple[Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)]]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Table(BaseModel):
    """A table of the file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SeriesRole(Table):
    """One of several series that are read together: which of a study's series it is."""

    name: str = Field(min_length=1, max_length=32)
    match: dict[str, tuple[str, ...]] = Field(min_length=1)  # DICOM keyword → globs, as in a route's match
    derived: bool = False  # whether a computed series (an ADC map) may fill it

    @field_validator("match", mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {key: [value] if isinstance(value, str) else value for key, value in given.items()}


class NnunetRules(Table):
    """How an nnU-Net v2 model folder is run (`postprocess = "nnunet"`)."""

    folds: tuple[str, ...] = ()  # "0", "all"; (): every fold that is there, averaged
    checkpoint: str = Field(default="checkpoint_final.pth", pattern=r"^[\w.-]+$")
    tile_step: float = Field(default=0.5, gt=0, le=1)  # of a window, from one to the next
    mirroring: bool = False  # eight times the time in 3D; nnU-Net's own default is true
    axes: str = Field(default="LPS", pattern=r"^[LR][AP][SI]$")  # whither x, y, z of the training arrays ran


class BoxRules(Table):
    """Which boxes of a detector are reported, and under which names it gives them."""

    labels: tuple[str, ...] = ("Finding",)  # by the detector's class number, from first_label on
    first_label: int = Field(default=0, ge=0, le=1)  # 1 for detectors of torchvision, whose 0 is the background
    corners: Literal["xyz", "yx"] = "xyz"  # MONAI's: in the order of the image's axes; torchvision's: columns before rows
    min_probability: Fraction = 0.5
    max_overlap: Fraction | None = None  # of two boxes of one label that share more (intersection over union) the lesser goes
    max_count: int = Field(default=25, ge=1, le=250)
    box_key: str = "box"
    label_key: str = "label"
    score_key: str = "label_scores"


class HeatMapRules(Table):
    """Where in the image an answer lies: the probability of one channel, or what a classifier looked at for one class.

    "probability": of a channel that labels voxels. "gradcam": MONAI's GradCAM of the class at `layer`. "cam": class-activation
    maps, for networks that end in global average pooling and one linear layer, `head`.
    """

    name: str
    channel: int = Field(ge=0)  # also the class
    method: Literal["probability", "gradcam", "cam"] = "probability"
    layer: str = ""  # of the network, as named_modules() has it
    head: str = ""

    @model_validator(mode="after")
    def _says_where(self) -> "HeatMapRules":
        if self.method != "probability" and not self.layer:
            raise ValueError(
                f'method = "{self.method}" needs layer: the name of the last convolution, as named_modules() has it'
            )
        if self.method == "cam" and not self.head:
            raise ValueError('method = "cam" needs head: the name of the linear layer after the pooling')
        return self


class ChainStep(Table):
    """Another pipeline that is run with this one.

    when = "before": its statements decide whether this one runs; require names which. when = "after": it reads the same image
    too. report: whether its findings stand in the result.
    """

    pipeline: str
    when: Literal["before", "after"] = "before"
    require: dict[str, tuple[str, ...]] = {}  # name of a statement → the values with which this pipeline runs
    min_probability: Fraction = 0.5  # a statement less probable than this stops nothing
    otherwise: Literal["refuse", "warn"] = "refuse"
    report: bool = False

    @model_validator(mode="after")
    def _gates_before(self) -> "ChainStep":
        if self.require and self.when == "after":
            raise ValueError('require is for when = "before"')
        return self


class DistributionRules(Table):
    """How far an image may lie from those that the model was trained on; `learning.distribution` fits it.

    features = "image": of the pixels, as `series_features` has them. "network": the mean of each channel at `layer`.
    """

    weights: str = "models/distribution.safetensors"
    features: Literal["image", "network"] = "image"
    layer: str = ""
    refuse: bool = True  # False: a warning only

    @model_validator(mode="after")
    def _names_its_layer(self) -> "DistributionRules":
        if self.features == "network" and not self.layer:
            raise ValueError('features = "network" needs layer, as named_modules() has it')
        return self


class TrainedOn(Table):
    """What the model card says of the training data. An input outside is processed, with a warning that travels."""

    kernels: tuple[str, ...] = ()  # globs of Convolution Kernel (0018,1210)
    slice_thickness_mm: tuple[float, float] | None = None
    contrast: Literal["any", "with", "without"] = "any"
    age_years: tuple[float, float] | None = None
    sexes: tuple[str, ...] = ()  # of Patient's Sex (0010,0040)
    manufacturers: tuple[str, ...] = ()  # globs


class HeadRules(Table):
    """One statement of a classical model: what it is about, and its classes in the order of the arrays."""

    name: str = Field(min_length=1, max_length=32)
    finding: CodedConcept = Code("404684003", "SCT", "Clinical finding")
    classes: tuple[str, ...] = Field(min_length=2)
    codes: dict[str, CodedConcept] = {}  # of classes that the label's own words do not name
    min_probability: Fraction = 0.0  # below it the answer is "uncertain"
    volumes_only: bool = False  # nothing is said of projections


class Platt(Table):
    """Calibration of a probability: logit(p) = slope × logit(score) + intercept; fitted on cases that training did not see."""

    slope: float = Field(default=1.0, gt=0)
    intercept: float = 0.0


class AnomalyRules(Table):
    """How an autoencoder's output is read: the difference between an image and what the network makes of it."""

    name: str = Field(default="anomaly", min_length=1, max_length=32)
    threshold: float = Field(gt=0)  # of the mean absolute difference, in the unit of the preprocessed image
    largest: float = Field(default=1.0, gt=0)  # difference that the heat map shows as 255
    calibration: Platt = Platt()
