"""The machine's clock jumps, back and forth, in the middle of a study: nothing is cut off, nobody waits for an hour."""

from collections.abc import Mapping, Sequence

import pytest

from dicomnode.domain.routes import Route
from dicomnode.registry import Registry
from dicomnode.routing import PipelineFacts, Watch, sweep
from tests.registry.samples import ONLY_SQLITE, Clock, received

pytestmark = ONLY_SQLITE

ROUTE = Route("ct", {"Modality": ("CT",)}, "p", "exact", "best", ("pacs",), ("SEG",), 10.0, 60.0, count_at="pacs")
PIPELINES = {"p": PipelineFacts("p", min_slices=1)}
HOUR = 3600.0
JUMPS = pytest.mark.parametrize("jump", [HOUR, -HOUR, 61.0, -61.0], ids=lambda jump: f"{jump:+g} s")


class Machine:
    """The machine's time, which may be set, true time, which goes on, and a sweep every second of it."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self.registry, self.clock, self.true = registry, clock, 0.0
        self.listed: int | None = None
        self.asked = 0
        self.start()

    def start(self) -> None:
        """The node, anew."""
        self.watch = Watch(lambda: self.true)

    def is_set(self, seconds: float) -> None:
        self.clock.forward(seconds)

    def goes_on(self, seconds: int) -> list[str]:
        """The jobs that come of it."""
        jobs: list[str] = []
        for _ in range(seconds):
            self.true += 1
            self.clock.forward(1)
            report = sweep(self.registry, (ROUTE,), self.clock.now, pipelines=PIPELINES, watch=self.watch, count=self._count)
            jobs += report.jobs_created
        return jobs

    def _count(self, _peer: str, _study: str, series: Sequence[str]) -> Mapping[str, int]:
        self.asked += 1
        return {} if self.listed is None else dict.fromkeys(series, self.listed)

    def image(self, number: int, *, association: str = "") -> None:
        one = received(f"1.2.3.1.{number}", at=self.clock.now, association_key=association)
        self.registry.add_instance(one, ours=False)

    @property
    def forced(self) -> bool:
        return bool(self.registry.explain("S1")["series"][0]["evidence"]["forced"])  # type: ignore[index]


@pytest.fixture
def machine(registry: Registry, clock: Clock) -> Machine:
    return Machine(registry, clock)


@JUMPS
def test_between_two_images_it_completes_nothing_and_after_the_last_it_delays_nothing(machine: Machine, jump: float) -> None:
    machine.image(1)
    assert machine.goes_on(3) == []
    machine.is_set(jump)
    assert machine.goes_on(3) == [], "six seconds of silence"
    machine.image(2)
    assert machine.goes_on(9) == []
    assert machine.goes_on(2) == ["J1"], "when it came between two looks nobody knows after a jump"
    assert not machine.forced


@JUMPS
def test_in_the_middle_of_the_quiet_period_it_neither_shortens_nor_lengthens_it(machine: Machine, jump: float) -> None:
    machine.image(1)
    assert machine.goes_on(5) == []
    machine.is_set(jump)
    assert machine.goes_on(4) == []
    assert machine.goes_on(1) == ["J1"]


@JUMPS
def test_between_two_sweeps_with_an_image_before_and_one_after_it(machine: Machine, jump: float) -> None:
    machine.image(1)
    machine.goes_on(2)
    machine.image(2)
    machine.is_set(jump)
    machine.image(3)
    assert machine.goes_on(9) == []
    assert machine.goes_on(2) == ["J1"], "when it came between two looks nobody knows after a jump"


@JUMPS
def test_an_association_that_sends_holds_the_series_as_long_as_ever(machine: Machine, jump: float) -> None:
    open_one = machine.registry.association_opened("MODALITY", "DICOMNODE", "127.0.0.1")
    machine.image(1, association=open_one)
    assert machine.goes_on(10) == []
    machine.is_set(jump)
    assert machine.goes_on(19) == [], "open and active not so long ago"
    assert machine.goes_on(2) == ["J1"], "idle"


@JUMPS
def test_the_routes_maximum_is_a_true_minute(machine: Machine, jump: float) -> None:
    machine.listed = 5
    machine.image(1)
    assert machine.goes_on(30) == []
    machine.is_set(jump)
    assert machine.goes_on(29) == []
    assert machine.goes_on(2) == ["J1"]
    assert machine.forced


@JUMPS
def test_counts_of_a_pacs_that_were_taken_at_another_time_prove_nothing(machine: Machine, jump: float) -> None:
    machine.listed = 2
    machine.image(1)
    machine.image(9)  # with a gap between: silence alone is thirty seconds
    assert machine.goes_on(12) == []
    assert machine.asked == 1
    machine.is_set(jump)
    assert machine.goes_on(9) == []
    assert machine.goes_on(9) == ["J1"], "two counts after the jump, or thirty seconds"


@JUMPS
def test_a_jump_while_the_node_was_down_costs_one_quiet_period(machine: Machine, jump: float) -> None:
    machine.image(1)
    machine.goes_on(2)
    machine.is_set(jump)
    machine.start()
    assert machine.goes_on(9) == []
    assert machine.goes_on(2) == ["J1"], "when it came between two looks nobody knows after a jump"


def test_after_a_long_time_down_a_sender_gets_a_quiet_period_to_go_on(machine: Machine) -> None:
    machine.image(1)
    machine.goes_on(2)
    machine.is_set(HOUR)  # longer than the route's maximum
    machine.start()
    assert machine.goes_on(5) == []
    machine.image(2)
    assert machine.goes_on(9) == []
    assert machine.goes_on(2) == ["J1"]
    assert not machine.forced
