"""What is looked at after a crash, and what is said of work that nobody will do."""

from dataclasses import replace
from pathlib import Path

from dicomnode.domain.clock import utc_now
from dicomnode.domain.states import JobEvent
from dicomnode.registry import Registry
from dicomnode.roles.deliver import stranded
from dicomnode.roles.leftovers import damaged_since_clean_stop
from dicomnode.settings import load_settings
from dicomnode.storage import FileMeta, Store
from tests.peers.node import destination, settings_text
from tests.registry.samples import Spool, add_series, queue_job, received

HEAD = FileMeta("1.2", "1.2.3.1.1", "1.2.840.10008.1.2.1", "1.2.3", "TEST").encoded()


def test_after_a_crash_damage_is_found_until_it_is_mended_and_whole_bytes_are_read_once(tmp_path: Path) -> None:
    store, registry = Store(tmp_path, reserve_bytes=0), Registry(f"sqlite:///{tmp_path / 'rows.db'}")
    store.prepare()
    registry.prepare()
    kept = store.write_instance(HEAD, (b"data set",))
    row = replace(received(at=utc_now()), path=kept.path, sha256=kept.sha256, size_bytes=kept.size_bytes)
    registry.add_instance(row, ours=False)
    path = store.absolute(kept.path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?")
    assert [damaged_since_clean_stop(store, registry) for _ in range(2)] == [1, 1]
    path.write_bytes(whole)
    assert damaged_since_clean_stop(store, registry) == 0
    path.unlink()
    assert damaged_since_clean_stop(store, registry) == 0  # it arrived before the last look: fsck's business now
    registry.close()


def test_results_for_a_destination_that_was_removed_from_the_settings_are_named(tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path / 'rows.db'}")
    registry.prepare()
    add_series(registry, 2)
    queue_job(registry)
    job = registry.claim_job("w", 60)
    assert job is not None
    registry.finish_job(job, JobEvent.FINISHED, results=Spool().objects(job), destinations=["folder", "gone"])
    config = tmp_path / "dicomnode.toml"
    folder = destination("folder", kind="folder", path=str(tmp_path), peer=None, proof="status")
    config.write_text(settings_text({"node": {"data_dir": str(tmp_path)}}, {"destinations": [folder]}))
    assert stranded(registry, load_settings(config)) == {"gone": 3}
    registry.close()
