"""What all objects of one set of results share: names, numbers, UIDs, local times.

UIDs depend on sources, pipeline, model, findings, form and version, never on the clock or on chance (DESIGN section 3).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from enum import Enum

import numpy as np

from dicomnode.domain.clock import local_zone
from dicomnode.domain.findings import Findings, ModelIdentity
from dicomnode.domain.imaging import Refusal
from dicomnode.domain.profiles import Profile, ResultKind
from dicomnode.domain.results import ResultRequest
from dicomnode.domain.uids import derived_uid
from dicomnode.results import equipment
from dicomnode.results.source import Sources
from dicomnode.results.writers import WRITERS, letters

LONGEST_LO = 64  # PS3.5 6.2
FIRST_SERIES_NUMBER = 9000
SERIES_NUMBER_SLOTS = 112  # × 8 kinds: 9000 to 9895


@dataclass(frozen=True, slots=True)
class Context:
    """One set of results in the making, in the form of one profile.

    `moment` is the content time in the zone in which DA and TM are written.
    """

    request: ResultRequest
    profile: Profile
    model: ModelIdentity
    demonstration: bool
    sources: Sources
    outcome_digest: str
    moment: datetime

    @property
    def notice(self) -> str:
        """The sentence that every page and report carries."""
        return equipment.notice_for(self.demonstration)

    def uid(self, kind: ResultKind, *parts: str) -> str:
        """A UID for something in the object of this kind; `parts` say for what."""
        request = self.request
        return derived_uid(
            (
                self.sources.study_instance_uid,
                self.sources.series_instance_uid,
                *(f"{uid}={digest}" for uid, digest in sorted(request.source_digests.items())),
                request.pipeline,
                request.pipeline_version,
                self.model.digest,
                self.outcome_digest,
                digest_of(self._form(kind)),
                str(request.version),
                kind.value,
                *parts,
            ),
            root=request.uid_root,
        )

    def _form(self, kind: ResultKind) -> tuple[object, ...]:
        """What else changes the bytes: the same UID must always mean the same bytes."""
        request = self.request
        return (
            WRITERS,
            request.node_timezone,
            request.predecessor,
            self.demonstration,
            dict(request.extra),
            letters() if request.draw_identity else "",
            self.form_of(kind),
        )

    def form_of(self, kind: ResultKind) -> tuple[object, ...]:
        """What of profile and route shapes an object of this kind: destinations that agree in it share the object.

        A report names the segmentation, a key object selection and a FHIR bundle all that there is.
        """
        profile, request = self.profile, self.request
        segmentation = (
            profile.seg_form,
            profile.max_segments,
            profile.max_frames,
            profile.over_limit,
            profile.keep_empty_frames,
            profile.without_frame_of_reference,
            profile.seg_on_projections or not self.sources.is_projection,
            profile.character_set,
        )
        captures = (profile.sc_form, profile.text_position, profile.character_set, request.draw_identity)
        report = (ResultKind.SEG in self.kinds, *segmentation, profile.sr_form, profile.sr_class, profile.library_images)
        match kind:
            case ResultKind.SEG:
                return segmentation
            case ResultKind.SR:
                return report
            case ResultKind.KOS | ResultKind.FHIR:
                return (self.kinds, *report, *captures)
            case _:
                return captures

    @property
    def kinds(self) -> tuple[ResultKind, ...]:
        """What is made for this profile: what the route asks for and the profile takes, in the order of sending."""
        return tuple(kind for kind in ResultKind if kind in self.request.kinds and kind in self.profile.kinds)

    def series_number(self, kind: ResultKind) -> int:
        """9000 to 9895, the same for the same pipeline, version and series; kinds of one set are neighbours."""
        key = f"{self.request.pipeline}\x1f{self.sources.series_instance_uid}\x1f{self.request.version}"
        slot = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % SERIES_NUMBER_SLOTS
        return FIRST_SERIES_NUMBER + len(ResultKind) * slot + list(ResultKind).index(kind)

    def description(self, what: str) -> str:
        """Series Description (LO, 64 characters): who, what, which version, and that it is a demonstration."""
        version = f" v{self.request.version}" if self.request.version > 1 else ""
        tail = f" {what}{version}" + (" - DEMO, not for clinical use" if self.demonstration else " - AI, to be confirmed")
        return f"{f'AI {self.model.name} {self.model.version}'[: LONGEST_LO - len(tail)]}{tail}"


def make_context(outcome: Findings | Refusal, sources: Sources, request: ResultRequest) -> Context:
    """The context of the first profile's set of results."""
    model = equipment.model_of(outcome, request)
    zone = local_zone(sources.timezone_offset_from_utc, request.node_timezone)
    return Context(
        request=request,
        profile=request.profiles[0],
        model=model,
        demonstration=request.demonstration or model.demonstration,
        sources=sources,
        outcome_digest=digest_of(outcome),
        moment=request.content_time.astimezone(zone),
    )


def digest_of(value: object) -> str:
    """SHA-256 (hex) of a seam's dataclass with its arrays; `timings_s` and `run` say nothing about the image: left out."""
    digest = hashlib.sha256()
    for chunk in _canonical(value):
        digest.update(chunk)
    return digest.hexdigest()


def _canonical(value: object) -> Iterator[bytes | memoryview]:
    """Type and length go before content, so that no two different values give the same bytes."""
    if is_dataclass(value) and not isinstance(value, type):
        yield f"<{type(value).__name__}".encode()
        for one in fields(value):
            if one.name not in {"timings_s", "run"}:
                yield f"{one.name}=".encode()
                yield from _canonical(getattr(value, one.name))
        yield b">"
    elif isinstance(value, np.ndarray):
        yield f"[{value.dtype.str}{value.shape}".encode()
        # Of a mask most slices may be empty: one that is not named holds zeros.
        for index, part in enumerate(value if value.ndim > 2 else value[None]):
            if part.any():
                yield f"{index}:".encode()
                yield np.ascontiguousarray(part).data
        yield b"]"
    elif isinstance(value, dict):
        yield from _canonical(tuple(sorted(value.items())))
    elif isinstance(value, tuple | list):
        yield f"({len(value)}:".encode()
        for item in value:
            yield from _canonical(item)
        yield b")"
    else:
        text = repr(value.value if isinstance(value, Enum) else value.item() if isinstance(value, np.generic) else value)
        yield f"{len(text)}:{text};".encode()
