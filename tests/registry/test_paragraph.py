"""How the paragraph of `explain` names many results."""

import pytest

from dicomnode.registry.paragraph import _keys, _kinds


@pytest.mark.parametrize(
    ("kinds", "said"),
    [(["SEG"], "SEG"), (["SEG", "SR", "SC"], "SEG, SR and SC"), (["SEG", "SR", *["SC"] * 20], "SEG, SR and 20 SC")],
)
def test_each_kind_is_named_once_with_its_number(kinds: list[str], said: str) -> None:
    assert _kinds(kinds) == said


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["D1", "D2", "D3"], "D1, D2 and D3"),
        ([f"D{n}" for n in range(7, 29)], "D7 to D28"),
        (["D1", "D2", "D3", "D4", "D9"], "D1, D2, D3, D4 and D9"),
    ],
)
def test_a_long_run_of_keys_is_named_by_its_ends(keys: list[str], said: str) -> None:
    assert _keys(keys) == said
