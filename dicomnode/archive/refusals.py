"""Why a request is not answered as it was meant."""


class RequestRefused(Exception):
    """The request ends with this outcome of `QUERY_CONDITIONS`."""

    def __init__(self, outcome: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome
