"""What an exception of MONAI, torch or a bundle's own code comes to in one line."""


def first_line(error: BaseException) -> str:
    """The first line of the innermost cause, at most 300 characters; the class's name where there is no text."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
