"""The reserve file of the database's disk, looked after while the node runs."""

import structlog

from dicomnode.storage import Reserve, ReserveChange

_log = structlog.get_logger()


class ReserveKeeper:
    """`tend` in every role that lives as long as the node: the space is free before the database asks for it twice."""

    def __init__(self, reserve: Reserve) -> None:
        self._reserve = reserve

    def tend(self) -> None:
        """Look once; says what it changed. Never raises: the work goes on without a reserve."""
        try:
            change = self._reserve.tend()
        except OSError as error:
            _log.warning("the reserve file cannot be looked after", error=type(error).__name__)
            return
        if change is ReserveChange.GIVEN_UP:
            _log.error("the disk is full: the reserve file was given up so that the database can write; free some space")
        elif change is ReserveChange.SET_ASIDE:
            _log.info("the reserve file is set aside")
