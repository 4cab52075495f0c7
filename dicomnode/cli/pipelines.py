"""Pipelines: list, check, add, train, evaluate."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicomnode.cli.options import ConfigOption, DebugOption, JsonOption, loaded
from dicomnode.cli.output import only_the_document_on_stdout, print_error, print_json, say, table
from dicomnode.domain.errors import PipelineError, SettingsError, UsageError

if TYPE_CHECKING:
    from dicomnode.cli.pipeline_source import Fetched
    from dicomnode.engines import PipelineInfo
    from dicomnode.learning.kinds import ClassicalReport
    from dicomnode.settings import Settings

app = typer.Typer(help="Pipelines: list, check, add, train, evaluate.", pretty_exceptions_enable=False)

_MOST_FIGURES = 3


@app.command("list")
def list_pipelines(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001 - read where errors end
) -> None:
    """List the pipelines that routes can name."""
    from dicomnode import engines

    settings = loaded(config, required=config is not None)
    infos = engines.find_pipelines(settings.pipeline_folders)
    found = [
        {
            "name": info.name,
            "version": info.version,
            "task": info.task,
            "digest": info.digest,
            "trusted": _trusted(settings, info.folder, info.digest),
            "demonstration": info.demonstration,
            "modality": info.modality,
            "folder": info.folder,
            "metrics": info.metrics,
            "provenance": _provenance(info),
        }
        for info in infos
    ]
    if as_json:
        print_json("pipelines.list", {"pipelines": found})
        return
    columns = ("name", "version", "task", "digest", "trusted", "demonstration", "figures", "from")
    rows = []
    for info, one in zip(infos, found, strict=True):
        figures = ", ".join(f"{name} {value:g}" for name, value in list(_figures(info.metrics))[:_MOST_FIGURES])
        shown = {**one, "digest": info.digest[:12], "figures": figures or "none stated", "from": _provenance(info)["source"]}
        rows.append([shown[column] for column in columns])
    table(columns, rows)


def _provenance(info: "PipelineInfo") -> dict[str, object]:
    """Where the pipeline came from: what `add` noted, or that it was shipped, or the folder where somebody put it."""
    from dicomnode.settings import shipped

    if info.provenance:
        return dict(info.provenance)
    is_shipped = info.folder.resolve().is_relative_to(shipped("pipelines").resolve())
    return {"source": "shipped with dicomnode" if is_shipped else str(info.folder)}


def _figures(metrics: Mapping[str, object], before: str = "") -> Iterator[tuple[str, float]]:
    """The numbers that a pipeline says of itself, by their path."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _figures(value, f"{before}{name} ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{before}{name}", float(value)


def _trusted(settings: "Settings", folder: Path, digest: str) -> bool:
    """Whether its own code may run: it came with the software, or the settings name its digest."""
    from dicomnode.settings import shipped

    return digest in settings.pipelines.trusted or folder.resolve().is_relative_to(shipped("pipelines").resolve())


@app.command("check")
def check_folder(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A pipeline's folder.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Say what keeps a folder from being a pipeline; of a MONAI bundle without pipeline.toml, what its draft would lack."""
    from dicomnode import engines

    if not directory.is_dir():
        raise UsageError(f"{directory} is no folder", "name the folder that holds pipeline.toml")
    trusted = frozenset(loaded(config, required=config is not None).pipelines.trusted)
    findings = engines.check_pipeline(directory, trusted_digests=trusted)
    ok = all(one.level != "error" for one in findings)
    if as_json:
        shown = [{"level": one.level, "what": one.what, "remedy": one.remedy} for one in findings]
        print_json("pipelines.check", {"ok": ok, "findings": shown})
    else:
        say(f"{directory}: {'can be used' if ok else 'cannot be used'}")
        if findings:
            table(("", "what", "what to do"), [(one.level, one.what, one.remedy) for one in findings])
    if not ok:
        first = next(one for one in findings if one.level == "error")
        print_error(first.what, first.remedy)
        raise typer.Exit(1)


@app.command()
def add(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="A bundle's folder, a ZIP of it, the URL of one, or zoo:NAME@VERSION.")
    ],
    replace: Annotated[bool, typer.Option("--replace", help="Replace an added pipeline of the same name.")] = False,
    sha256: Annotated[str | None, typer.Option("--sha256", metavar="HEX", help="The SHA-256 that the ZIP must have.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="For a bundle without pipeline.toml.")] = None,
    modality: Annotated[str | None, typer.Option("--modality", help="The same, where its metadata name none.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Check a pipeline and copy it to the node's own; a MONAI bundle without pipeline.toml gets a draft of one."""
    from dicomnode.cli.pipeline_source import fetch

    settings = loaded(config)
    store = settings.data_dir / "pipelines"
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remedy = "set node.data_dir to a folder that this user may write"
        raise SettingsError(f"folder {store} cannot be made: {error.strerror}", remedy) from None
    with tempfile.TemporaryDirectory(dir=store, prefix=".adding-") as workplace:
        fetched = fetch(source, Path(workplace), sha256)
        doubts = _drafted(fetched, source, name, modality)
        info = _checked(fetched.folder, source, frozenset(settings.pipelines.trusted))
        _note_provenance(fetched, source)
        target = store / info.name
        if target.exists() and not replace:
            raise UsageError(f"pipeline {info.name!r} was added before", "say --replace to put the new one in its place")
        if target.exists():
            target.rename(Path(workplace) / "old")
        fetched.folder.rename(target)
    trusted = info.digest in settings.pipelines.trusted
    if as_json:
        payload = {"name": info.name, "version": info.version, "digest": info.digest, "trusted": trusted, "folder": target}
        print_json("pipelines.add", {**payload, "drafted": doubts is not None, "doubts": list(doubts or ())})
    else:
        _say_added(info, target, doubts)


def _say_added(info: "PipelineInfo", target: Path, doubts: tuple[str, ...] | None) -> None:
    say(f"pipeline {info.name} {info.version} is in {target}")
    if doubts is not None:
        say(f"it had no pipeline.toml: one was drafted, read {target / 'pipeline.toml'} before use")
        for doubt in doubts:
            say(f"  guessed: {doubt}")
    say(f"digest {info.digest}; list it under pipelines.trusted if the bundle brings code of its own that you trust")


def _drafted(fetched: "Fetched", source: str, name: str | None, modality: str | None) -> tuple[str, ...] | None:
    """What was guessed for a bundle that had no pipeline.toml; None where it had one."""
    from dicomnode.engines.drafting import draft_sidecar, pipeline_name
    from dicomnode.engines.nnunet import draft_nnunet, is_nnunet

    path = fetched.folder / "pipeline.toml"
    if path.is_file():
        if name or modality:
            raise UsageError(f"{source} has a pipeline.toml of its own", "leave --name and --modality out, or correct the file")
        return None
    named = name or pipeline_name(fetched.called)
    try:
        if is_nnunet(fetched.folder):
            draft = draft_nnunet(fetched.folder, named, modality)
        else:
            draft = draft_sidecar(fetched.folder, name=named, modality=modality)
    except PipelineError as error:
        raise PipelineError(error.what.replace(str(fetched.folder), source), error.remedy) from error
    path.write_text(draft.text, encoding="utf-8")
    return draft.doubts


def _checked(folder: Path, source: str, trusted: frozenset[str]) -> "PipelineInfo":
    """The facts of a pipeline without errors. Raises PipelineError, which names `source`, not its copy."""
    from dicomnode import engines

    errors = [one for one in engines.check_pipeline(folder, trusted_digests=trusted) if one.level == "error"]
    if errors:
        raise PipelineError(errors[0].what.replace(str(folder), source), errors[0].remedy)
    return next(one for one in engines.find_pipelines([folder.parent]) if one.folder == folder)


def _note_provenance(fetched: "Fetched", source: str) -> None:
    """Beside the bundle's files, outside its digest: where it came from, when, and what the ZIP was."""
    from dicomnode.engines.catalogue import PROVENANCE_NAME

    is_address = source.startswith(("http://", "https://", "zoo:"))
    origin = source if is_address else str(Path(source).absolute())
    noted = {"source": origin, "sha256": fetched.zip_sha256, "added_at": datetime.now(UTC).isoformat(timespec="seconds")}
    (fetched.folder / PROVENANCE_NAME).write_text(json.dumps(noted, indent=2) + "\n", encoding="utf-8")


def _found(settings: "Settings", name: str) -> Path:
    """The folder of the pipeline of this name. Raises UsageError."""
    from dicomnode import engines
    from dicomnode.settings_problems import nearest

    found = {info.name: info.folder for info in engines.find_pipelines(settings.pipeline_folders)}
    if name not in found:
        remedy = f"the nearest one is {nearest(name, found)!r}" if found else "add one with dicomnode pipelines add"
        raise UsageError(f"there is no pipeline {name!r}", remedy)
    return found[name]


RealDataOption = Annotated[
    Path | None, typer.Option("--real-data", metavar="DIR", help="Folder of the real series, as docs/pipelines.md names them.")
]


@app.command()
def train(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A pipeline with configs/train.json.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Default: training-runs/NAME.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed, data and machine give the same weights.")] = 0,
    minutes: Annotated[float | None, typer.Option("--minutes", help="About how long; default: the whole plan.")] = None,
    real_data: RealDataOption = None,
    leave_one_out: Annotated[
        bool, typer.Option("--leave-one-out", help="Also a model per real series that did not see it, for evaluate.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Train a pipeline anew; what comes out is a bundle of its own, to be evaluated and added."""
    from dicomnode.cli.progress import shares

    folder = _found(loaded(config, required=config is not None), name)
    out = (out or Path("training-runs") / name).absolute()
    with only_the_document_on_stdout(), shares() as tell:
        from dicomnode.learning import kinds, training

        classical = kinds.is_classical(folder)
        if classical:
            made = kinds.train(folder, out, seed=seed, real_data=real_data, progress=tell)
        else:
            report = training.train(
                folder, out, seed=seed, minutes=minutes, real_data=real_data, progress=tell, leave_one_out=leave_one_out
            )
    if classical:
        _say_classical(name, made, as_json=as_json)
        return
    if as_json:
        print_json("pipelines.train", asdict(report))
        return
    scans = len(report.real_scans)
    say(f"trained in {report.seconds / 60:.1f} min: {report.phantoms} phantoms, {scans} real scans, seed {seed}")
    say(f"bundle   {report.bundle}")
    say(f"weights  {report.weights}  SHA-256 {report.weights_sha256}")
    say(f"next     dicomnode pipelines evaluate {name} --bundle {report.bundle}; dicomnode pipelines add {report.bundle}")


def _say_classical(name: str, report: "ClassicalReport", *, as_json: bool) -> None:
    if as_json:
        print_json("pipelines.train", asdict(report))
        return
    say(f"trained in {report.seconds:.0f} s on {report.examples} examples of {report.patients} patients")
    say(f"bundle   {report.bundle}")
    say(f"weights  {report.weights}  SHA-256 {report.weights_sha256}")
    _say_metrics(report.metrics)
    say(f"next     dicomnode pipelines add {report.bundle} (pipeline {name})")


def _say_metrics(metrics: Mapping[str, Mapping[str, object]]) -> None:
    for group, values in metrics.items():
        table((group, ""), [(key, _figure(value)) for key, value in values.items()])


@app.command()
def evaluate(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A pipeline.")],
    bundle: Annotated[
        Path | None, typer.Option("--bundle", metavar="DIR", help="A trained bundle instead of the pipeline.")
    ] = None,
    phantoms: Annotated[int, typer.Option("--phantoms", min=1, help="How many synthetic patients it never saw.")] = 40,
    real_data: RealDataOption = None,
    folds: Annotated[
        Path | None, typer.Option("--folds", metavar="DIR", help="Output folder of train --leave-one-out, for real series.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Measure a pipeline on phantoms it never saw, and on real series by models that did not see them."""
    from dicomnode.cli.progress import shares

    folder = bundle or _found(loaded(config, required=config is not None), name)
    unseen = {path.stem.removeprefix("without_"): path for path in sorted(folds.glob("without_*.safetensors"))} if folds else {}
    with only_the_document_on_stdout(), shares() as tell:
        from dicomnode.learning import evaluation, kinds

        if kinds.is_classical(folder):
            figures = kinds.evaluate(folder, real_data=real_data, progress=tell)
        else:
            figures = evaluation.evaluate(folder, phantoms=phantoms, real_data=real_data, folds=unseen, progress=tell)
    if as_json:
        print_json("pipelines.evaluate", {"name": name, "bundle": folder, "metrics": figures})
        return
    _say_metrics(figures)


def _figure(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_figure(one)}" for key, one in value.items())
    return f"{value:.3f}" if isinstance(value, float) else str(value)
