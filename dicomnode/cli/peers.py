"""SCU tools: `echo` and `send`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicomnode.cli.options import ConfigOption, DebugOption, JsonOption, loaded, our_peer
from dicomnode.cli.output import print_error, print_json, say, table
from dicomnode.domain.errors import DicomNodeError, PeerUnreachable, UsageError

if TYPE_CHECKING:
    from dicomnode.domain.routes import Peer

PeerArgument = Annotated[str, typer.Argument(metavar="PEER", help="Name of a peer in the settings.")]
GROUP = 100  # files of one association: few enough for 128 presentation contexts in any mixture


def echo(
    peer: PeerArgument,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001 - read where errors end
) -> None:
    """Ask a peer whether it is there (C-ECHO)."""
    from dicomnode import network
    from dicomnode.roles import wiring

    settings = loaded(config)
    asked = wiring.peers(settings)[our_peer(settings, peer)]
    try:
        seconds = network.echo(asked, settings.node.ae_title)
    except PeerUnreachable as error:
        if not as_json:
            raise
        print_error(error)
        print_json("echo", {"ok": False, "status": None, "peer": peer, "error": error.what, "remedy": error.remedy})
        raise typer.Exit(int(error.exit_code)) from None
    if as_json:
        print_json("echo", {"ok": True, "status": 0, "peer": peer, "seconds": seconds})
    else:
        say(f"{peer} ({asked.ae_title} at {asked.host}:{asked.port}) answered after {seconds * 1000:.0f} ms")


def send(
    peer: PeerArgument,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Files and folders of DICOM files.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Send files to a peer (C-STORE). Files that are no DICOM are named as failed."""
    from dicomnode.cli.progress import progress
    from dicomnode.roles import wiring

    settings = loaded(config)
    to = wiring.peers(settings)[our_peer(settings, peer)]
    files = list(_files(paths))
    sent, failed = 0, []
    with progress("sending", len(files)) as step:
        for start in range(0, len(files), GROUP):
            for path, why in _send_group(to, settings.node.ae_title, files[start : start + GROUP]):
                step()
                if why:
                    failed.append({"path": path, "why": why})
                else:
                    sent += 1
    if as_json:
        print_json("send", {"sent": sent, "failed": failed, "peer": peer})
    else:
        say(f"{sent} of {len(files)} files sent to {peer}")
        if failed:
            table(("file", "why"), [(one["path"], one["why"]) for one in failed])
    if not files:
        print_error("no files were found", "name DICOM files, or folders of them")
    elif failed:
        print_error(f"{len(failed)} of {len(files)} files were not sent to {peer}", "the answer names each and why")
    if failed or not files:
        raise typer.Exit(1)


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(one for one in path.rglob("*") if one.is_file())
        elif path.exists():
            yield path
        else:
            raise UsageError(f"{path} does not exist", "name files or folders that do")


def _send_group(peer: "Peer", our_ae_title: str, group: list[Path]) -> Iterator[tuple[Path, str]]:
    """Each file with the reason why it was not sent, "" if it was. Raises PeerUnreachable if the peer cannot be reached."""
    from dicomnode import network
    from dicomnode.domain.statuses import Outcome, outcome_of_store

    readable = []
    for path in group:
        try:
            network.store_contexts_for([path])
            readable.append(path)
        except DicomNodeError as error:
            yield path, error.what
    if not readable:
        return
    with network.associate(peer, our_ae_title, network.store_contexts_for(readable)) as association:
        for path in readable:
            try:
                status = network.send_file(association, path)
            except DicomNodeError as error:
                yield path, error.what
                continue
            accepted = outcome_of_store(status) in {Outcome.ACCEPTED, Outcome.ACCEPTED_WITH_WARNING}
            yield path, "" if accepted else "the link was lost" if status is None else f"status 0x{status:04X}"
