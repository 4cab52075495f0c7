"""`dicomnode …`: the table of commands, and one place where errors become lines and exit codes."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence

import typer

from dicomnode.cli import bench, check, database, demo, files, node, operator, peers, pipelines
from dicomnode.cli.output import error_document, print_error, print_json
from dicomnode.domain.errors import DicomNodeError, ExitCode

app = typer.Typer(
    name="dicomnode",
    help="A PACS-integrated DICOM AI node: receives studies, runs pipelines, returns SEG, SR and secondary captures.",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: dict[str, Callable[..., None]] = {
    "init": node.init,
    "check": check.check,
    "run": node.run,
    "status": node.status,
    "studies": operator.studies,
    "explain": operator.explain,
    "retry": operator.retry,
    "cancel": operator.cancel,
    "reprocess": operator.reprocess,
    "volume": files.volume,
    "infer": files.infer,
    "echo": peers.echo,
    "send": peers.send,
    "fsck": database.fsck,
    "demo": demo.demo,
    "version": node.version,
}
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(pipelines.app, name="pipelines")
app.add_typer(database.app, name="db")
app.add_typer(bench.app, name="bench")


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    code = run(words)
    sys.stdout.flush()
    sys.exit(code)


def run(words: Sequence[str]) -> int:
    """One command; its exit code. Every error ends here as one line, with `--json` as a document besides."""
    as_json, debug = "--json" in words, "--debug" in words
    try:
        outcome = app(args=list(words), prog_name="dicomnode", standalone_mode=False)
    except DicomNodeError as error:
        return _report(error.what, error.remedy, error.exit_code, as_json=as_json, debug=debug)
    except BrokenPipeError:  # `dicomnode studies | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.NO)
    except (KeyboardInterrupt, typer.Abort):
        return _report("interrupted", "run it again", ExitCode.NO, as_json=as_json, debug=debug)
    except Exception as error:  # noqa: BLE001 - the boundary of the process
        if hasattr(error, "format_message"):  # Typer's usage errors: unknown command, missing argument …
            return _usage(error, as_json=as_json, debug=debug)
        what = f"an error inside dicomnode ({type(error).__name__})"
        return _report(
            what, "run it again with --debug and report what it shows", ExitCode.INTERNAL, as_json=as_json, debug=debug
        )
    return int(outcome or ExitCode.DONE)


def _usage(error: Exception, *, as_json: bool, debug: bool) -> int:
    message = str(error.format_message()).rstrip(".")  # type: ignore[attr-defined]
    path = getattr(getattr(error, "ctx", None), "command_path", "") or "dicomnode"
    return _report(message[:1].lower() + message[1:], f"{path} --help shows how", ExitCode.USAGE, as_json=as_json, debug=debug)


def _report(what: str, remedy: str, code: ExitCode, *, as_json: bool, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print_error(what, remedy)
    if as_json:
        print_json("error", error_document(what, remedy, code))
    return int(code)
