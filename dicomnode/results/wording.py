"""How numbers read in sentences and on pictures."""


def percent(probability: float) -> str:
    """A probability as whole percents; never "0%" or "100%" for what is neither impossible nor certain."""
    if 0 < probability < 0.005:
        return "<1%"
    if 0.995 < probability < 1:
        return ">99%"
    return f"{probability:.0%}"


def capitalized(text: str) -> str:
    """With a capital first letter, the rest as it is."""
    return text[:1].upper() + text[1:]
