"""The life of jobs."""

import pytest

from dicomnode.domain.errors import StaleUpdate, UsageError
from dicomnode.domain.states import DeliveryEvent, JobEvent
from dicomnode.registry import MAX_JOB_ATTEMPTS, MAX_JOB_STARTS, ClaimedJob, Registry
from tests.registry.samples import Clock, Spool, add_series, queue_job, received


def claimed(registry: Registry, worker: str = "w1") -> ClaimedJob:
    job = registry.claim_job(worker, 60)
    assert job is not None
    return job


def state(registry: Registry, key: str) -> str:
    return registry.audit(key)[-1].to_state


def test_a_claimed_job_carries_all_that_a_worker_needs(registry: Registry, clock: Clock) -> None:
    add_series(registry, 3)
    assert queue_job(registry) == ["J1"]
    job = claimed(registry)
    assert (job.key, job.study_key, job.series_key, job.version, job.attempt) == ("J1", "S1", "E1", 1, 1)
    assert job.series is not None
    assert [one.path.as_posix() for one in job.series.instances] == [f"instances/1.2.3.1.{n}.dcm" for n in (1, 2, 3)]
    assert set(job.source_digests) == {"1.2.3.1.1", "1.2.3.1.2", "1.2.3.1.3"}
    assert job.content_time == clock.now
    assert job.predecessor is None
    assert registry.claim_job("w2", 60) is None


def test_the_end_of_a_job_writes_state_results_and_deliveries_together(registry: Registry) -> None:
    add_series(registry, 3)
    queue_job(registry)
    job = claimed(registry)
    registry.finish_job(
        job,
        JobEvent.FINISHED,
        findings_summary={"lesions": []},
        results=Spool().objects(job),
        destinations=["pacs", "archive"],
        kinds_by_destination={"archive": ("SC",)},
        timings_s={"forward": 1.5},
    )
    answer = registry.explain("S1")
    (series,) = answer["series"]  # type: ignore[misc]
    assert [one["state"] for one in series["jobs"]] == ["done"]
    assert [one["kind"] for one in series["results"]] == ["SEG", "SR", "SC"]
    sent = sorted((one["destination"], one["kind"]) for one in series["deliveries"])
    assert sent == [("archive", "SC"), ("pacs", "SC"), ("pacs", "SEG"), ("pacs", "SR")]
    assert [(row.from_state, row.to_state, row.event) for row in registry.audit("J1")] == [
        ("", "queued", "created"),
        ("queued", "running", "claimed"),
        ("running", "done", "finished"),
    ]


def test_a_worker_that_comes_back_late_changes_nothing(registry: Registry, clock: Clock) -> None:
    add_series(registry, 3)
    queue_job(registry)
    late = claimed(registry, "late")
    clock.forward(61)
    assert registry.requeue_lost() == 1
    clock.forward(3600)
    other = claimed(registry, "other")
    before = registry.explain("S1")
    with pytest.raises(StaleUpdate):
        registry.finish_job(late, JobEvent.FINISHED, results=Spool().objects(late), destinations=["pacs"])
    with pytest.raises(StaleUpdate):
        registry.renew_lease(late)
    assert registry.explain("S1") == before
    registry.renew_lease(other)
    registry.finish_job(other, JobEvent.FINISHED)


def test_the_same_worker_cannot_end_an_earlier_claim_of_its_own_after_a_restart(registry: Registry) -> None:
    add_series(registry, 3)
    queue_job(registry)
    before = claimed(registry, "w1")
    registry.node_restarted()
    after = claimed(registry, "w1")
    assert (before.attempt, after.attempt) == (1, 1)
    with pytest.raises(StaleUpdate):
        registry.finish_job(before, JobEvent.FINISHED)
    registry.finish_job(after, JobEvent.FINISHED)


def test_a_renewed_lease_is_not_lost(registry: Registry, clock: Clock) -> None:
    add_series(registry, 3)
    queue_job(registry)
    job = claimed(registry)
    clock.forward(50)
    registry.renew_lease(job)
    clock.forward(50)
    assert registry.requeue_lost() == 0


def test_a_transient_failure_waits_its_time(registry: Registry, clock: Clock) -> None:
    add_series(registry, 3)
    queue_job(registry)
    registry.finish_job(claimed(registry), JobEvent.TRY_AGAIN, reason="memory ran out", retry_after_s=30)
    clock.forward(29)
    assert registry.claim_job("w1", 60) is None
    clock.forward(2)
    assert claimed(registry).attempt == 2


def test_leases_lost_to_the_last_attempt_end_the_job(registry: Registry, clock: Clock) -> None:
    add_series(registry, 3)
    queue_job(registry)
    for _ in range(MAX_JOB_ATTEMPTS):
        job = claimed(registry)
        clock.forward(61)
        registry.requeue_lost()
        clock.forward(7200)
    assert job.last_attempt
    assert state(registry, "J1") == "failed"
    assert registry.claim_job("w1", 60) is None


def test_the_third_crash_of_its_worker_sets_a_job_aside_and_no_other(registry: Registry, clock: Clock) -> None:
    add_series(registry, 3)
    add_series(registry, 3, study="1.2.4", series="1.2.4.1")
    queue_job(registry)
    for crash in range(3):
        job = claimed(registry, f"w{crash}")
        assert job.key == "J1"
        assert job.attempt == 1
        assert registry.worker_died(f"w{crash}") == 1
        clock.forward(3600)
    assert state(registry, "J1") == "failed"
    assert "poison" in registry.audit("J1")[-1].reason
    assert claimed(registry).key == "J2"


def test_a_restart_of_the_node_costs_no_attempt_and_the_twentieth_waits_for_an_operator(registry: Registry) -> None:
    add_series(registry, 3)
    queue_job(registry)
    for _ in range(MAX_JOB_STARTS):
        assert claimed(registry).attempt == 1
        assert registry.node_restarted() == 1
    assert registry.claim_job("w1", 60) is None
    assert "waits for an operator because it was found running after 20 starts" in str(registry.explain("S1")["paragraph"])
    assert registry.retry("J1") == ["J1"]
    assert claimed(registry).attempt == 1


def test_a_late_image_supersedes_what_ran_and_the_next_version_names_its_predecessor(registry: Registry, clock: Clock) -> None:
    add_series(registry, 3)
    queue_job(registry)
    job = claimed(registry)
    spool = Spool()
    registry.finish_job(job, JobEvent.FINISHED, findings_summary={}, results=spool.objects(job), destinations=["pacs"])
    seg = registry.claim_delivery("d1", "pacs", 60)
    assert seg is not None
    registry.finish_delivery(seg, DeliveryEvent.ACCEPTED, status=0)
    sr = registry.claim_delivery("d1", "pacs", 60)
    assert sr is not None
    assert sr.result.kind == "SR"
    registry.finish_delivery(sr, DeliveryEvent.ACCEPTED, status=0)

    late = received("1.2.3.1.4", at=clock.forward(60))
    assert registry.add_instance(late, ours=False).new
    assert state(registry, "E1") == "arriving"
    assert state(registry, "J1") == "superseded"
    assert state(registry, "D3") == "cancelled"  # the SC of the old version had not left yet

    assert queue_job(registry) == ["J2"]
    second = claimed(registry)
    assert second.version == 2
    assert len(second.source_digests) == 4
    assert second.predecessor is not None
    assert (second.predecessor.version, second.predecessor.sr_sop_instance_uid) == (1, sr.result.sop_instance_uid)


@pytest.mark.parametrize("running", [False, True])
def test_a_late_image_supersedes_a_job_that_has_not_ended(registry: Registry, running: bool) -> None:
    add_series(registry, 3)
    queue_job(registry)
    job = claimed(registry) if running else None
    registry.add_instance(received("1.2.3.1.9"), ours=False)
    assert state(registry, "J1") == "superseded"
    if job is not None:
        with pytest.raises(StaleUpdate):
            registry.finish_job(job, JobEvent.FINISHED)
    queue_job(registry)
    assert claimed(registry).predecessor is None


def test_a_duplicate_makes_no_new_work(registry: Registry) -> None:
    add_series(registry, 3)
    queue_job(registry)
    again = registry.add_instance(received("1.2.3.1.2"), ours=False)
    assert (again.study_key, again.series_key, again.new) == ("S1", "E1", False)
    assert state(registry, "J1") == "queued"
    assert registry.studies_to_judge() == []


def test_not_run_is_said_once(registry: Registry, clock: Clock) -> None:
    spool = Spool()
    for version in (1, 2):
        registry.add_instance(received(f"1.2.3.1.{version}", at=clock.forward(1)), ours=False)
        queue_job(registry)
        job = claimed(registry)
        registry.finish_job(
            job,
            JobEvent.REFUSED,
            reason_code="gap",
            reason="a slice is missing",
            results=spool.objects(job, ("SR", "SC")),
            destinations=["pacs"],
        )
        if version == 1:
            while (one := registry.claim_delivery("d", "pacs", 60)) is not None:
                registry.finish_delivery(one, DeliveryEvent.ACCEPTED, status=0)
    assert registry.claim_delivery("d", "pacs", 60) is None
    assert registry.status_counts()["counts"]["deliveries"]["sent"] == 2  # type: ignore[index]


def test_an_operator_cancels_retries_and_reprocesses(registry: Registry) -> None:
    add_series(registry, 3)
    queue_job(registry)
    assert registry.cancel("J1") == ["J1"]
    assert registry.claim_job("w", 60) is None
    with pytest.raises(UsageError, match="J1 is cancelled"):
        registry.cancel("J1")
    assert registry.retry("j1") == ["J1"]
    job = claimed(registry)
    registry.finish_job(job, JobEvent.FINISHED)
    with pytest.raises(UsageError, match="failed or refused or cancelled"):
        registry.retry("J1")
    assert registry.reprocess("J1") == ["J2"]
    assert state(registry, "J1") == "superseded"
    assert claimed(registry).version == 2
    assert registry.reprocess("1.2.3") == ["S1", "J2"]
    assert queue_job(registry) == ["J3"]


@pytest.mark.parametrize("text", ["J99", "D99", "S99", "E99", "X1", "1.2.99"])
def test_an_unknown_key_is_a_wrong_use(registry: Registry, text: str) -> None:
    with pytest.raises(UsageError):
        registry.retry(text)


def test_a_retry_that_ends_the_same_way_sends_nothing_twice(registry: Registry) -> None:
    add_series(registry, 3)
    queue_job(registry)
    spool = Spool()
    for _ in range(2):
        job = claimed(registry)
        registry.finish_job(
            job, JobEvent.REFUSED, reason_code="gap", results=spool.objects(job, ("SR", "SC")), destinations=["pacs"]
        )
        while (one := registry.claim_delivery("d", "pacs", 60)) is not None:
            registry.finish_delivery(one, DeliveryEvent.ACCEPTED, status=0)
        if job.starts == 1:
            registry.retry("J1")
    assert registry.status_counts()["counts"]["deliveries"]["sent"] == 2  # type: ignore[index]


def test_a_worker_that_was_told_to_end_costs_its_job_no_attempt_and_no_crash(registry: Registry) -> None:
    add_series(registry, 3)
    queue_job(registry)
    for number in range(5):
        assert claimed(registry, f"w{number}").attempt == 1
        assert registry.worker_ended("another") == 0
        assert registry.worker_ended(f"w{number}") == 1
    assert state(registry, "J1") == "queued"


def test_a_job_that_failed_with_its_workers_is_said_to_be_not_run_once(registry: Registry, clock: Clock) -> None:
    add_series(registry, 3)
    queue_job(registry)
    assert registry.claim_notice("well") is None
    for crash in range(3):
        claimed(registry, f"w{crash}")
        registry.worker_died(f"w{crash}")
        clock.forward(3600)
    notice = registry.claim_notice("well")
    assert notice is not None
    assert notice.refusal is not None
    assert "died 3 times" in notice.refusal.message
    assert registry.claim_notice("well") is None
    registry.say_not_run(notice, Spool().objects(notice, ("SR", "SC")), ["pacs"], {"pacs": ("SC",)})
    assert state(registry, "J1") == "failed"
    delivery = registry.claim_delivery("d", "pacs", 60)
    assert delivery is not None
    assert delivery.result.kind == "SC"
    assert registry.claim_delivery("d", "pacs", 60) is None


def failed_with_its_workers(registry: Registry, clock: Clock) -> None:
    add_series(registry, 3)
    queue_job(registry)
    for crash in range(3):
        claimed(registry, f"w{crash}")
        registry.worker_died(f"w{crash}")
        clock.forward(3600)


def test_a_notice_whose_speaker_was_ended_is_spoken_by_another_one(registry: Registry, clock: Clock) -> None:
    """A restart of the node between claim and word must not leave "AI not run" unsaid."""
    failed_with_its_workers(registry, clock)
    cut_off = registry.claim_notice("w:1")
    assert cut_off is not None
    clock.forward(240)
    assert registry.claim_notice("w:2") is None, "it may still speak"
    clock.forward(120)
    notice = registry.claim_notice("w:2")
    assert notice is not None
    with pytest.raises(StaleUpdate):
        registry.say_not_run(cut_off, Spool().objects(cut_off, ("SC",), note="late"), ["pacs"], {})
    registry.say_not_run(notice, Spool().objects(notice, ("SC",)), ["pacs"], {})
    assert registry.claim_delivery("d", "pacs", 60) is not None
    assert registry.claim_delivery("d", "pacs", 60) is None
    clock.forward(86_400)
    assert registry.claim_notice("w:3") is None, "it was said"


def test_a_notice_that_ends_whoever_speaks_it_is_given_up_after_three_times(registry: Registry, clock: Clock) -> None:
    failed_with_its_workers(registry, clock)
    for speaker in range(3):
        assert registry.claim_notice(f"w:{speaker}") is not None
        clock.forward(600)
    assert registry.claim_notice("w:4") is None
    registry.retry("J1")
    for crash in range(3):
        claimed(registry, f"w{crash}")
        registry.worker_died(f"w{crash}")
        clock.forward(3600)
    assert registry.claim_notice("w:5") is not None, "the operator's retry begins anew"


def test_a_notice_that_a_full_disk_keeps_from_being_said_waits_for_room_however_long(registry: Registry, clock: Clock) -> None:
    failed_with_its_workers(registry, clock)
    for _ in range(10):
        notice = registry.claim_notice("w:1")
        assert notice is not None
        registry.put_off_notice(notice, 60.0)
        assert registry.claim_notice("w:1") is None
        clock.forward(61)
    notice = registry.claim_notice("w:1")
    assert notice is not None
    registry.say_not_run(notice, Spool().objects(notice, ("SC",)), ["pacs"], {})


def test_a_notice_that_comes_after_an_operators_retry_is_dropped(registry: Registry, clock: Clock) -> None:
    add_series(registry, 3)
    queue_job(registry)
    for crash in range(3):
        claimed(registry, f"w{crash}")
        registry.worker_died(f"w{crash}")
        clock.forward(3600)
    notice = registry.claim_notice("well")
    assert notice is not None
    registry.retry("J1")
    with pytest.raises(StaleUpdate):
        registry.say_not_run(notice, Spool().objects(notice, ("SR",)), ["pacs"], {})
    assert registry.claim_delivery("d", "pacs", 60) is None


def in_turn(registry: Registry) -> list[str]:
    """The keys of all jobs in the order in which workers get them."""
    keys = []
    while (job := registry.claim_job("w", 60)) is not None:
        keys.append(job.study_key)
    return keys


def queued(registry: Registry, number: int, priority: int) -> None:
    add_series(registry, 1, study=f"1.9.{number}", series=f"1.9.{number}.1")
    queue_job(registry, priority=priority)


def test_jobs_of_a_higher_priority_go_first_and_the_oldest_of_one_priority(registry: Registry, clock: Clock) -> None:
    for number, priority in enumerate((0, 1, 0, 5, 1)):
        queued(registry, number, priority)
        clock.forward(1)
    assert in_turn(registry) == ["S4", "S2", "S5", "S1", "S3"]


def test_nobody_waits_for_ever_behind_jobs_of_a_higher_priority(registry: Registry, clock: Clock) -> None:
    """Each step of priority is worth ten minutes of waiting, no more."""
    queued(registry, 0, 0)
    clock.forward(2 * 600 + 1)
    queued(registry, 1, 2)
    queued(registry, 2, 3)
    assert in_turn(registry) == ["S3", "S1", "S2"]


def test_an_operators_new_version_keeps_the_priority_of_its_job(registry: Registry, clock: Clock) -> None:
    queued(registry, 0, 3)
    clock.forward(60)
    queued(registry, 1, 0)
    assert registry.reprocess("J1") == ["J3"]
    assert in_turn(registry) == ["S1", "S2"]
