"""Pipelines: list, check, add, train, evaluate."""

import shutil
import stat
import tempfile
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicomnode.cli.options import ConfigOption, DebugOption, JsonOption, loaded
from dicomnode.cli.output import only_the_document_on_stdout, print_error, print_json, say, table
from dicomnode.domain.errors import PipelineError, SettingsError, UsageError

if TYPE_CHECKING:
    from dicomnode.settings import Settings

app = typer.Typer(help="Pipelines: list, check, add, train, evaluate.", pretty_exceptions_enable=False)

LARGEST_BUNDLE_BYTES = 8 * 2**30


@app.command("list")
def list_pipelines(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001 - read where errors end
) -> None:
    """List the pipelines that routes can name."""
    from dicomnode import engines

    settings = loaded(config, required=config is not None)
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
        }
        for info in engines.find_pipelines(settings.pipeline_folders)
    ]
    if as_json:
        print_json("pipelines.list", {"pipelines": found})
        return
    columns = ("name", "version", "task", "digest", "trusted", "demonstration", "folder")
    table(columns, [[str(one[column])[:12] if column == "digest" else one[column] for column in columns] for one in found])


def _trusted(settings: "Settings", folder: Path, digest: str) -> bool:
    """Whether its own code may run: it came with the software, or the settings name its digest."""
    from dicomnode.settings import shipped

    return digest in settings.pipelines.trusted or folder.resolve().is_relative_to(shipped("pipelines").resolve())


@app.command("check")
def check_folder(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A pipeline's folder.")],
    config: ConfigOption = None,  # noqa: ARG001
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Say what keeps a folder from being a pipeline."""
    from dicomnode import engines

    if not directory.is_dir():
        raise UsageError(f"{directory} is no folder", "name the folder that holds pipeline.toml")
    findings = engines.check_pipeline(directory)
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
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A pipeline's folder, or a ZIP of it.")],
    replace: Annotated[bool, typer.Option("--replace", help="Replace an added pipeline of the same name.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Check a pipeline and copy it to the node's own pipelines."""
    settings = loaded(config)
    store = settings.data_dir / "pipelines"
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remedy = "set node.data_dir to a folder that this user may write"
        raise SettingsError(f"folder {store} cannot be made: {error.strerror}", remedy) from None
    with tempfile.TemporaryDirectory(dir=store, prefix=".adding-") as workplace:
        folder = _unpacked(source, Path(workplace))
        name, version, digest = _checked(folder, source)
        target = store / name
        if target.exists() and not replace:
            raise UsageError(f"pipeline {name!r} was added before", "say --replace to put the new one in its place")
        if target.exists():
            target.rename(Path(workplace) / "old")
        folder.rename(target)
    trusted = digest in settings.pipelines.trusted
    if as_json:
        payload = {"name": name, "version": version, "digest": digest, "trusted": trusted, "folder": target}
        print_json("pipelines.add", payload)
    else:
        say(f"pipeline {name} {version} is in {target}")
        say(f"digest {digest}; list it under pipelines.trusted if the bundle brings code of its own that you trust")


def _checked(folder: Path, source: Path) -> tuple[str, str, str]:
    """Name, version and digest of a pipeline without errors. Raises PipelineError, which names `source`, not its copy."""
    from dicomnode import engines

    errors = [one for one in engines.check_pipeline(folder) if one.level == "error"]
    if errors:
        raise PipelineError(errors[0].what.replace(str(folder), str(source)), errors[0].remedy)
    info = next(one for one in engines.find_pipelines([folder.parent]) if one.folder == folder)
    return info.name, info.version, info.digest


def _unpacked(source: Path, workplace: Path) -> Path:
    """A copy of the pipeline's folder in `workplace`. Raises UsageError for what is neither folder nor ZIP of one."""
    remedy = "name a folder with a pipeline.toml in it, or a ZIP of one"
    copy = workplace / "new"
    if source.is_dir():
        shutil.copytree(source, copy, symlinks=True)
    elif zipfile.is_zipfile(source):
        _unzip(source, copy)
    else:
        raise UsageError(f"{source} is neither a folder nor a ZIP file", remedy)
    if any(path.is_symlink() for path in copy.rglob("*")):
        raise UsageError(f"{source} holds symbolic links", "replace them by the files that they point to")
    found = sorted(copy.rglob("pipeline.toml"), key=lambda path: len(path.parts))
    if not found:
        raise UsageError(f"{source} holds no pipeline.toml", remedy)
    return found[0].parent


def _unzip(source: Path, target: Path) -> None:
    """Unpack within `target`: no way out of it, no links, no bombs."""
    with zipfile.ZipFile(source) as archive:
        if sum(member.file_size for member in archive.infolist()) > LARGEST_BUNDLE_BYTES:
            raise UsageError(f"{source} unpacks to more than {LARGEST_BUNDLE_BYTES >> 30} GB", "name a pipeline's own ZIP")
        for member in archive.infolist():
            outside = not (target / member.filename).resolve().is_relative_to(target.resolve())
            if outside or stat.S_ISLNK(member.external_attr >> 16):
                raise UsageError(f"{source} holds {member.filename!r}, which leads out of it", "do not use this ZIP")
        try:
            archive.extractall(target)  # every member was looked at
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            # RuntimeError: zipfile's word for an encrypted member.
            raise UsageError(f"{source} cannot be unpacked: {error}", "get it again, or pack it as a plain ZIP") from None


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
        from dicomnode.learning import training

        report = training.train(
            folder, out, seed=seed, minutes=minutes, real_data=real_data, progress=tell, leave_one_out=leave_one_out
        )
    if as_json:
        print_json("pipelines.train", asdict(report))
        return
    scans = len(report.real_scans)
    say(f"trained in {report.seconds / 60:.1f} min: {report.phantoms} phantoms, {scans} real scans, seed {seed}")
    say(f"bundle   {report.bundle}")
    say(f"weights  {report.weights}  SHA-256 {report.weights_sha256}")
    say(f"next     dicomnode pipelines evaluate {name} --bundle {report.bundle}; dicomnode pipelines add {report.bundle}")


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
        from dicomnode.learning import evaluation

        figures = evaluation.evaluate(folder, phantoms=phantoms, real_data=real_data, folds=unseen, progress=tell)
    if as_json:
        print_json("pipelines.evaluate", {"name": name, "bundle": folder, "metrics": figures})
        return
    for group, values in figures.items():
        table((group, ""), [(key, _figure(value)) for key, value in values.items()])


def _figure(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_figure(one)}" for key, one in value.items())
    return f"{value:.3f}" if isinstance(value, float) else str(value)
