"""One study sent to two of our AE titles, by DCMTK: stored once, and the routes of both titles run."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from dicomnode.domain.clock import utc_now
from dicomnode.domain.routes import Route
from dicomnode.domain.states import JobEvent
from dicomnode.registry import Registry
from dicomnode.routing import PipelineFacts, sweep
from tests.peers.dcmtk import storescu
from tests.peers.waiting import wait_until
from tests.receiving.reception import Reception
from tests.receiving.samples import ILE, changed, ct, saved

IMAGES = 4
QUIET_S = 10
ROUTES = tuple(
    Route(title.lower(), {"CalledAETitle": (title,)}, title.lower(), "exact", "best", ("pacs",), ("SEG",), QUIET_S, 600.0)
    for title in ("CHEST", "LUNG")
)
PIPELINES = {route.pipeline: PipelineFacts(route.pipeline, "CT", 2) for route in ROUTES}


class Titles(Reception):
    """A node that is called CHEST and LUNG, with a route for each."""

    def called(self, title: str, *paths: Path, extra: tuple[str, ...] = ("-xe",)) -> None:
        sent = storescu(self.port, *paths, calling="SCANNER", called=title, extra=extra)
        assert sent.ok, sent.output
        wait_until(self._has_noted_the_ends, what="the ends of associations are noted")

    def _has_noted_the_ends(self) -> bool:
        return not any(study.associations for study in self.registry.studies_to_judge())

    def swept(self, later_s: float = 0.0) -> list[str]:
        """Pipelines whose jobs a sweep creates, as if it were later."""
        keys = sweep(self.registry, ROUTES, utc_now() + timedelta(seconds=later_s), pipelines=PIPELINES).jobs_created
        pipelines = {job["id"]: job["pipeline"] for job in self.series["jobs"]}
        return [pipelines[key] for key in keys]

    def done(self) -> int:
        """Take the next job and end it; how many images it had."""
        job = self.registry.claim_job("w", 60)
        assert job is not None
        self.registry.finish_job(job, JobEvent.FINISHED, results=(), destinations=())
        return len(job.source_digests)

    @property
    def series(self) -> Any:
        (one,) = self.registry.explain("S1")["series"]  # type: ignore[misc]
        return one


@pytest.fixture(params=["sqlite", "postgresql"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Titles]:
    """A started node on either database."""
    one = Titles(tmp_path / "node", {"ae_title": "CHEST", "also_called": ["LUNG"]})
    if request.param == "postgresql":
        one.registry.close()
        server = request.getfixturevalue("postgresql")
        one.registry = Registry(server.create(f"titles_{tmp_path.name.lower()[-30:]}"))
        one.registry.prepare()
        one.ledger = one.registry
    with one:
        yield one


@pytest.fixture
def images() -> list[Dataset]:
    first = ct()
    return [
        changed(first, SOPInstanceUID=generate_uid(), InstanceNumber=n + 1, ImagePositionPatient=[0, 0, 2.5 * n])
        for n in range(IMAGES)
    ]


def test_the_second_title_runs_its_route_after_the_first_ones_job_is_done_and_a_re_send_runs_nothing(
    node: Titles, images: list[Dataset], tmp_path: Path
) -> None:
    paths = [saved(image, tmp_path) for image in images]
    node.called("CHEST", *paths)
    assert node.swept(QUIET_S + 1) == ["chest"]
    assert node.done() == IMAGES
    kept = node.files()
    node.called("LUNG", *paths)
    assert node.files() == kept
    assert len(kept) == IMAGES
    assert node.swept() == []
    assert node.swept(QUIET_S + 1) == ["lung"]
    assert node.done() == IMAGES
    for title in ("LUNG", "CHEST"):
        node.called(title, *paths)
        assert node.registry.studies_to_judge() == []
    assert node.swept(2 * QUIET_S) == []
    assert (node.series["from"]["called_ae"], node.series["also_called"], node.series["state"]) == (
        "CHEST",
        ["LUNG"],
        "complete",
    )
    assert [(job["pipeline"], job["state"], job["version"]) for job in node.series["jobs"]] == [
        ("chest", "done", 1),
        ("lung", "done", 1),
    ]


def test_both_titles_while_the_study_still_arrives_run_both_routes_over_all_images(
    node: Titles, images: list[Dataset], tmp_path: Path
) -> None:
    paths = [saved(image, tmp_path) for image in images]
    node.called("CHEST", *paths[:2])
    node.called("LUNG", *paths)
    node.called("CHEST", *paths)
    assert node.swept(QUIET_S + 1) == ["chest", "lung"]
    assert [node.done(), node.done()] == [IMAGES, IMAGES]


@pytest.mark.parametrize("how", ["another transfer syntax", "damaged", "purged"])
def test_the_second_title_counts_too_where_the_images_come_in_other_bytes_or_theirs_are_gone(
    node: Titles, images: list[Dataset], tmp_path: Path, how: str
) -> None:
    paths = [saved(image, tmp_path) for image in images]
    node.called("CHEST", *paths)
    assert node.swept(QUIET_S + 1) == ["chest"]
    node.done()
    if how == "damaged":
        node.store.absolute(node.known(images[0].SOPInstanceUID).path).unlink()
        node.called("LUNG", paths[0])
    elif how == "purged":
        assert node.registry.keeping.purge_sources(utc_now() + timedelta(days=1), ["pacs"], 10) == ["S1"]
        for path in node.registry.keeping.files_to_remove(10):
            node.store.absolute(path).unlink()
        node.called("LUNG", *paths)
    else:
        node.called("LUNG", *(saved(image, tmp_path, ILE) for image in images), extra=("-xi",))
    assert node.swept() == []
    assert node.swept(QUIET_S + 1) == ["lung"]
    assert node.done() == IMAGES


def test_a_contradiction_at_the_second_title_is_held_and_starts_nothing(
    node: Titles, images: list[Dataset], tmp_path: Path
) -> None:
    node.called("CHEST", *(saved(image, tmp_path) for image in images))
    assert node.swept(QUIET_S + 1) == ["chest"]
    node.done()
    node.called("LUNG", *(saved(changed(image, PixelData=bytes(512)), tmp_path) for image in images))
    assert node.swept(QUIET_S + 1) == []
    assert node.series["held"]
    assert node.series["also_called"] == []
