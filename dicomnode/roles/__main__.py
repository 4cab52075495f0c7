"""`python -m dicomnode.roles ROLE …`: one role as a process. For the supervisor; people use `dicomnode run`."""

import argparse
import importlib
import sys
from pathlib import Path

import structlog

from dicomnode import logs
from dicomnode.domain.errors import DicomNodeError, ExitCode
from dicomnode.roles import ROLES
from dicomnode.roles.lifeline import Lifeline
from dicomnode.settings import load_settings


def main() -> int:
    """Runs the role until it is told to stop; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m dicomnode.roles", description=__doc__)
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--supervisor", type=int)
    parser.add_argument("--pipe", type=int)
    asked = parser.parse_args()
    lifeline = Lifeline(asked.supervisor, asked.pipe)
    try:
        settings = load_settings(asked.config)
        logs.configure(asked.role, level=settings.logs.level, form=settings.logs.format)
        importlib.import_module(f"dicomnode.roles.{asked.role}").main(settings, lifeline)
    except DicomNodeError as error:
        if error.exit_code in (ExitCode.USAGE, ExitCode.UNREACHABLE):  # these texts speak of settings, never of patients
            print(f"error: {error}", file=sys.stderr, flush=True)  # noqa: T201
        else:
            structlog.get_logger().error("role failed", exc_info=error)
        return int(error.exit_code)
    except Exception as error:  # noqa: BLE001 - the boundary of the process: nothing but class and place may reach the log
        structlog.get_logger().error("role failed", exc_info=error)
        return int(ExitCode.INTERNAL)
    return int(ExitCode.DONE)


if __name__ == "__main__":
    sys.exit(main())
