"""Files without a node: `volume` says what imaging makes of them, `infer` runs a pipeline on them."""

import hashlib
import os
import resource
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicomnode.cli.inputs import Together, together
from dicomnode.cli.options import ConfigOption, DebugOption, JsonOption, loaded
from dicomnode.cli.output import only_the_document_on_stdout, print_error, print_json, say, table
from dicomnode.cli.progress import progress
from dicomnode.domain.errors import DicomNodeError, PipelineError, UsageError
from dicomnode.domain.imaging import Image2D, Refusal, SeriesRef

if TYPE_CHECKING:
    from dicomnode.engines import Pipeline
    from dicomnode.imaging import Scan
    from dicomnode.roles.analysis import Analysis
    from dicomnode.settings import Settings

PathsArgument = Annotated[list[Path], typer.Argument(metavar="PATH…", help="DICOM files and folders of them.")]


class Speed(StrEnum):
    """How a pipeline runs."""

    EXACT = "exact"
    FAST = "fast"


def _scanned(paths: list[Path]) -> "Scan":
    from dicomnode import imaging

    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist", "name files or folders that do")
    return imaging.scan(paths)


def _quiet_libraries() -> None:
    from dicomnode import logs

    logs.configure("cli", level="error")


def volume(
    paths: PathsArgument,
    config: ConfigOption = None,  # noqa: ARG001 - needs no settings
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001 - read where errors end
) -> None:
    """Say what imaging makes of files: a volume, an image, or a refusal with its reason."""
    from dicomnode import imaging

    _quiet_libraries()
    with only_the_document_on_stdout():
        imaging.install_decoders()
        found = _scanned(paths)
        described = []
        with progress("loading", len(found.series)) as step:
            for series in found.series:
                described.append(_described(series))
                step()
    if as_json:
        print_json("volume", {"series": described, "ignored": _ignored(found)})
    else:
        columns = ("series", "outcome", "shape (z, y, x)", "spacing mm", "why")
        rows = [(d["series_instance_uid"], d["outcome"], d["shape"], d["spacing_mm"], d["reason"]) for d in described]
        table(columns, rows)
        _say_ignored(found)
    if all(one["outcome"] == "refused" for one in described):
        _say_why_not(described, "no series makes a volume or an image")
        raise typer.Exit(1)


def _described(series: SeriesRef) -> dict[str, Any]:
    from dicomnode import imaging

    image = imaging.load(series)
    record: dict[str, Any] = dict.fromkeys(("code", "reason", "remedy", "shape", "spacing_mm", "affine"))
    record = {"series_instance_uid": series.series_instance_uid, "outcome": "refused", **record, "warnings": []}
    if isinstance(image, Refusal):
        return record | {"code": image.code.value, "reason": image.message, "remedy": image.remedy}
    record |= {"shape": list(image.pixels.shape), "warnings": list(image.warnings)}
    if isinstance(image, Image2D):
        return record | {"outcome": "image", "spacing_mm": image.pixel_spacing_mm}
    spacing = [round(one, 6) for one in image.spacing_mm]
    return record | {"outcome": "volume", "spacing_mm": spacing, "affine": image.affine.tolist(), "unit": image.unit}


def _ignored(found: "Scan") -> list[dict[str, object]]:
    return [{"path": path, "why": why} for path, why in found.ignored]


def _say_ignored(found: "Scan") -> None:
    if found.ignored:
        table(("ignored", "why"), found.ignored)


def _say_why_not(records: list[dict[str, Any]], what: str) -> None:
    """The error line of an answer that is no: the first record's reason stands for all."""
    if records:
        print_error(f"{what}: {records[0]['reason']}", records[0]["remedy"] or "the answer names each and why")
    else:
        print_error("no series was found", "name DICOM image files, or folders of them")


def infer(
    paths: PathsArgument,
    pipeline: Annotated[str, typer.Option("--pipeline", help="Name of a pipeline, or its folder.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the result objects.")],
    speed: Annotated[Speed, typer.Option("--speed", help="exact, or fast where the pipeline allows it.")] = Speed.EXACT,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda …; default: the settings'.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Run a pipeline on files and write its result objects; needs no database and no node."""
    settings = loaded(config, required=config is not None)
    _quiet_libraries()
    with only_the_document_on_stdout():
        found = _scanned(paths)
        folder = _pipeline_folder(settings, pipeline)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{out} cannot be made: {error.strerror}", "name a folder that you may write") from None
        loaded_pipeline = _load_pipeline(settings, folder, device)
        cases = together(found.series, loaded_pipeline.sidecar)
        with progress("inferring", len(cases)) as step:
            runs = []
            for case in cases:
                runs.append(_run(settings, case, loaded_pipeline, speed, out, debug=debug))
                step()
    if as_json:
        print_json("infer", {"runs": runs, "ignored": _ignored(found)})
    else:
        _say_runs(runs)
        _say_ignored(found)
    if not any(one["outcome"] == "done" for one in runs):
        _say_why_not(runs, "the pipeline finished on no series")
        raise typer.Exit(1)


def _pipeline_folder(settings: "Settings", name: str) -> Path:
    from dicomnode import engines
    from dicomnode.settings_problems import nearest

    if Path(name, "pipeline.toml").is_file():
        return Path(name)
    found = {info.name: info.folder for info in engines.find_pipelines(settings.pipeline_folders)}
    if name not in found:
        near = f"the nearest one is {nearest(name, found)!r}; dicomnode pipelines list names all" if found else "add one"
        raise UsageError(f"there is no pipeline {name!r}", near)
    return found[name]


def _proofs(settings: "Settings") -> Path:
    """Where it is remembered which fast ways passed their self-test: with the node's data, else in the user's cache."""
    if os.access(settings.data_dir, os.W_OK):
        return settings.data_dir / "selftests"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dicomnode" / "selftests"


def _load_pipeline(settings: "Settings", folder: Path, device: str | None) -> "Pipeline":
    from dicomnode import engines, imaging, logs

    imaging.install_decoders()
    trusted = frozenset(settings.pipelines.trusted)
    pipeline = engines.load_pipeline(
        folder,
        device=device or settings.work.device,
        trusted_digests=trusted,
        folders=settings.pipeline_folders,
        proofs=_proofs(settings),
    )
    logs.take_over_libraries()
    return pipeline


def _run(
    settings: "Settings", case: Together, pipeline: "Pipeline", speed: Speed, out: Path, *, debug: bool
) -> dict[str, object]:
    """One series' record."""
    from dicomnode.roles.analysis import Analysis, analyse, findings_summary

    series = case.series
    record: dict[str, object] = {"series_instance_uid": series.series_instance_uid, "outcome": "failed", "code": None}
    record |= {"reason": None, "remedy": None, "findings": None, "objects": [], "timings_s": _all_timings({})}
    try:
        if case.refusal is not None:
            analysis = Analysis(None, case.refusal)
        else:
            analysis = analyse(series, lambda: pipeline, speed=speed.value, others=case.others)
        record |= _concluded(settings, case, pipeline, analysis, out)
        record["findings"] = findings_summary(analysis.outcome)
    except DicomNodeError as error:
        code = "pipeline_failed" if isinstance(error, PipelineError) else "failed"
        record |= {"code": code, "reason": error.what, "remedy": error.remedy}
    except Exception as error:
        if debug:
            raise
        record |= {"code": "internal_error", "reason": f"an error inside dicomnode ({type(error).__name__})"}
        record |= {"remedy": "run it again with --debug and report what it shows"}
    record["peak_rss_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    return record


def _concluded(
    settings: "Settings", case: Together, pipeline: "Pipeline", analysis: "Analysis", out: Path
) -> dict[str, object]:
    """Outcome, reason, objects and times of an analysis whose result objects were written."""
    from dicomnode.domain.profiles import SHIPPED
    from dicomnode.domain.results import ResultRequest
    from dicomnode.roles.analysis import build_results

    series = case.series
    sources = [one.path for one in series.instances]
    read = [one for ref in (series, *case.others.values()) for one in ref.instances]
    request = ResultRequest(
        pipeline=pipeline.identity.name,
        pipeline_version=pipeline.identity.version,
        version=1,
        content_time=_time_of(sources, settings.timezone),
        node_timezone=settings.timezone,
        source_digests={one.sop_instance_uid: _digest(one.path) for one in read},
        uid_root=settings.node.uid_root,
        demonstration=pipeline.identity.demonstration,
        model=pipeline.identity,
        # Who asks for files asks for the mask of a radiograph too, whatever one viewer makes of it.
        profiles=(replace(SHIPPED["ohif"], seg_on_projections=True),),
    )
    folder = out / hashlib.sha256(series.series_instance_uid.encode()).hexdigest()[:12]
    folder.mkdir(exist_ok=True)
    objects, results_s = build_results(analysis, sources, request, folder)
    refusal = analysis.outcome if isinstance(analysis.outcome, Refusal) else None
    return {
        "outcome": "refused" if refusal else "done",
        "code": refusal.code.value if refusal else None,
        "reason": refusal.message if refusal else None,
        "remedy": refusal.remedy if refusal else None,
        "objects": [{"kind": o.kind.value, "path": o.path.absolute(), "sop_instance_uid": o.sop_instance_uid} for o in objects],
        "timings_s": _all_timings({**analysis.timings_s, "results": results_s}),
    }


def _all_timings(known: Mapping[str, float]) -> dict[str, float | None]:
    steps = ("decode", "preprocess", "forward", "postprocess", "results")
    return dict.fromkeys(steps) | {name: round(seconds, 4) for name, seconds in known.items()}


def _digest(path: Path) -> str:
    """SHA-256 (hex) of the data set, as the node notes it of what it receives; of the whole file where that has no head."""
    from dicomnode.storage.part10 import read_head

    with path.open("rb") as file:
        try:
            read_head(file)
        except ValueError:
            file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _time_of(sources: list[Path], timezone: str) -> datetime:
    """When the newest source was made: the same files give the same objects, byte for byte, whenever they are inferred."""
    import pydicom

    from dicomnode.domain.clock import local_zone

    moments = []
    for path in (sources[0], sources[-1]):
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        for kind in ("Content", "Acquisition", "Series", "Study"):
            text = str(header.get(f"{kind}Date") or "") + (str(header.get(f"{kind}Time") or "") + "000000")[:6]
            zone = local_zone(str(header.get("TimezoneOffsetFromUTC") or ""), timezone)
            try:
                moments.append(datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=zone).astimezone(UTC))
            except ValueError:
                continue
    return max(moments, default=datetime(2000, 1, 1, tzinfo=UTC))


def _say_runs(runs: list[dict[str, Any]]) -> None:
    for one in runs:
        say(
            f"series {one['series_instance_uid']}: {one['outcome']}"
            + (f" ({one['code']}: {one['reason']})" if one["code"] else "")
        )
        findings = one["findings"] or {"segments": [], "lesions": [], "classifications": []}
        if findings["segments"]:
            segments = [(s["label"], f"{s['volume_ml']:.2f}", s["voxels"]) for s in findings["segments"]]
            table(("segment", "ml", "voxels"), segments)
        if findings["lesions"]:
            rows = [
                (
                    lesion["tracking_id"],
                    ", ".join(f"{value:.0f}" for value in lesion["center_mm"]),
                    f"{lesion['long_axis_mm']:.1f}",
                    f"{lesion['volume_ml']:.2f}",
                    f"{lesion['probability']:.2f}",
                )
                for lesion in findings["lesions"]
            ]
            table(("lesion", "centre mm (L, P, S)", "long axis mm", "ml", "probability"), rows)
        for statement in findings["classifications"]:
            say(f"{statement['name']}: {statement['value']} ({statement['probability']:.2f})")
        for written in one["objects"]:
            say(f"  {written['kind']}  {written['path']}")
