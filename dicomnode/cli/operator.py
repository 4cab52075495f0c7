"""What came, what became of it, and an operator's hand: `studies`, `explain`, `retry`, `cancel`, `reprocess`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from dicomnode.cli.options import ConfigOption, DebugOption, JsonOption, existing_registry, loaded
from dicomnode.cli.output import print_error, print_json, say, table

if TYPE_CHECKING:
    from dicomnode.registry import Registry

StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="Study Instance UID, key (S12) or accession number.")]
KeyArgument = Annotated[str, typer.Argument(metavar="ID", help="A job (J12) or delivery (D34).")]


def studies(
    query: Annotated[
        str, typer.Argument(metavar="[QUERY]", help="UID, key, patient ID, name or accession number; * matches.")
    ] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001 - read where errors end
) -> None:
    """List studies, newest first."""
    registry = existing_registry(loaded(config))
    found = cast("list[dict[str, Any]]", registry.studies(query))
    registry.close()
    if as_json:
        print_json("studies", {"studies": found})
        return
    rows = []
    for study in found:
        jobs = [f"{job['pipeline']}: {job['state']}" for series in study["series"] for job in series["jobs"]]
        images = sum(series["instances"] for series in study["series"])
        row = (study["key"], study["patient_id"], study["patient_name"], study["study_date"])
        rows.append((*row, len(study["series"]), images, "; ".join(dict.fromkeys(jobs))))
    table(("key", "patient ID", "patient", "date", "series", "images", "jobs"), rows)


def explain(
    study: StudyArgument,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Say what came of a study, what ran and why, what left and what proof there is."""
    registry = existing_registry(loaded(config))
    answer = cast("dict[str, Any]", registry.explain(study))
    registry.close()
    if as_json:
        print_json("explain", answer)
        return
    say(answer["paragraph"])
    rows = [
        (series.get("key", ""), series["state"], verdict["route"], "chosen" if verdict["chosen"] else "", verdict["why"])
        for series in answer["series"]
        for verdict in series["routes"]
    ]
    if rows:
        table(("series", "state", "route", "", "why"), rows)
    sent = [
        (one["id"], one["destination"], one["state"], one["attempts"], one["proof"], one["last_error"])
        for series in answer["series"]
        for one in series["deliveries"]
    ]
    if sent:
        table(("delivery", "to", "state", "attempts", "proof", "last error"), sent)


def _change(command: str, config: Path | None, as_json: bool, change: "Callable[[Registry], list[str]]") -> None:
    registry = existing_registry(loaded(config))
    changed = change(registry)
    registry.close()
    if as_json:
        print_json(command, {"changed": changed})
    else:
        say(f"changed: {', '.join(changed) or 'nothing'}")
    if not changed:
        print_error("there was nothing to change", "dicomnode explain STUDY shows how things stand")
        raise typer.Exit(1)


def retry(
    key: KeyArgument,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Do the same job or delivery again, or let a held series or study go on."""
    _change("retry", config, as_json, lambda registry: registry.retry(key))


def cancel(
    key: KeyArgument,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Cancel a job or delivery."""
    _change("cancel", config, as_json, lambda registry: registry.cancel(key))


def reprocess(
    study: Annotated[str, typer.Argument(metavar="STUDY|ID", help="A study, or one job (J12).")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Make a new version of the results, with new UIDs."""
    _change("reprocess", config, as_json, lambda registry: registry.reprocess(study))
