"""The table of `bench ingest`: which cases, who receives in each, and the goals set for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dicomnode.bench import receivers
from dicomnode.bench.measuring import OURS, Goal, Row, by_key
from dicomnode.bench.receivers import Receiver

IMAGE, MEDIAN_IMAGE, SYNC = "ms/image", "ms, median image", "ms/sync"
PEAK, GROWTH, SYNCS, SECONDS = "MB peak", "MB growth", "syncs/image", "s"
UNSYNCED, SAMPLED, DISK, SLOW_SYNC_MS = "ours-unsynced", "ours-sampled", "disk", 3.0
QUIET_DISK_MS = 0.3  # the goals for ratios are set for disks at least so fast, by S of an MR image

RECEIVERS: Mapping[str, Receiver] = {
    one.name: one
    for one in (
        receivers.ours(OURS),
        receivers.ours(UNSYNCED),
        receivers.ours(SAMPLED, sampled=True),
        receivers.ours("ours-serial", order="serial"),
        receivers.storescp("storescp"),
        receivers.storescp("storescp-fork", "--fork"),
        receivers.storescp("storescp+B", "+B"),
        receivers.orthanc(),
        receivers.storescp("storescp-128K", "--max-pdu", "131072"),
        receivers.orthanc("orthanc-128K", MaximumPduLength=131072),
        receivers.pynetdicom_app(),
        receivers.bare_floor(),
    )
}


@dataclass(frozen=True, slots=True)
class Case:
    """`images` of one kind over `associations`, to each of `subjects`; `only_full` ones join with --full.

    one_each: an association for every image. nagled: storescu over MTU 1500. least_sync_ms: under the shim.
    fewer: subjects so slow that fewer images must do.
    """

    name: str
    kind: str
    images: int
    associations: int
    subjects: tuple[str, ...]
    only_full: tuple[str, ...] = ()
    one_each: bool = False
    nagled: bool = False
    least_sync_ms: float | None = None
    measures_sync: bool = False
    profiled: bool = False
    fewer: Mapping[str, int] = field(default_factory=dict)

    def receivers(self, *, full: bool) -> Sequence[Receiver]:
        """Who receives."""
        return [RECEIVERS[name] for name in (*self.subjects, *(self.only_full if full else ()))]


_PEERS = ("storescp", "orthanc", "pynetdicom")
_LONG_PDUS = ("storescp-128K", "orthanc-128K")  # peers announce 16 K as they are installed
_MANY = ("storescp", "storescp-fork", "orthanc", "pynetdicom")
_SLOW_TO_ASSOCIATE = {"pynetdicom": 40}


def _cases() -> tuple[Case, ...]:
    made: list[Case] = []
    for kind, images in (("CT", 300), ("MR", 600)):
        one = (OURS, UNSYNCED, "floor", *_PEERS)
        made.append(Case(f"1x{kind}", kind, images, 1, one, ("ours-serial", *_LONG_PDUS), measures_sync=True, profiled=True))
        made.append(Case(f"4x{kind}", kind, images, 4, (OURS, *_MANY), ("ours-serial",)))
        made.append(Case(f"16x{kind}", kind, images, 16, (OURS, "storescp-fork", "orthanc", "pynetdicom"), ("storescp",)))
    made.append(Case("1GB", "GB", 1, 1, (OURS, "storescp", "storescp+B", "orthanc", "pynetdicom"), ("floor", *_LONG_PDUS)))
    for kind in ("MR", "CT"):
        each = (OURS, UNSYNCED, *_PEERS)
        made.append(
            Case(
                f"association-per-{kind}",
                kind,
                300,
                1,
                each,
                ("storescp-fork",),
                one_each=True,
                profiled=True,
                fewer=_SLOW_TO_ASSOCIATE,
            )
        )
    made += [Case(f"nagled-{kind}", kind, 200, 1, (OURS, "orthanc", "storescp"), nagled=True) for kind in ("CT", "MR")]
    slow = (OURS, "orthanc")
    made += [Case(f"3ms-{kind}", kind, 200, 1, slow, least_sync_ms=SLOW_SYNC_MS) for kind in ("CT", "MR")]
    return tuple(made)


CASES = _cases()

# t(peer)/t(ours) to be reached: of medians, every image durable, against peers with TCP_NODELAY=1.
_RATIO_GOALS: Mapping[str, float] = {
    "1xCT/orthanc": 2.5,
    "1xCT/storescp": 0.5,
    "1xCT/pynetdicom": 5.0,
    "1xMR/orthanc": 2.0,
    "1xMR/storescp": 0.5,
    "1xMR/pynetdicom": 5.0,
    "4xCT/orthanc": 2.5,
    "4xCT/storescp": 0.9,
    "4xCT/pynetdicom": 5.0,
    "4xMR/orthanc": 1.7,
    "4xMR/storescp": 0.9,
    "4xMR/pynetdicom": 5.0,
    "16xCT/orthanc": 2.0,
    "16xCT/storescp-fork": 0.9,
    "16xMR/orthanc": 2.0,
    "16xMR/storescp-fork": 0.9,
    "1GB/orthanc": 8.0,
    "1GB/storescp": 2.5,
    "1GB/pynetdicom": 8.0,
    "1GB/storescp+B": 0.7,
    "association-per-MR/orthanc": 1.8,
    "association-per-MR/storescp": 0.4,
    "association-per-MR/pynetdicom": 40.0,
    "nagled-CT/orthanc": 4.0,
    "nagled-MR/orthanc": 4.0,
}
_LAW, _SLOW_DISK = 1.3, 1.3
_GROWTH_MB, _PEAK_MB, _START_S = 20.0, 120.0, 1.5


def goals(rows: Sequence[Row], ratios: Mapping[str, float]) -> list[Goal]:
    """Every goal beside what was measured; the gate first."""
    found = {key: row.median for key, row in by_key(rows).items()}
    judged: list[Goal] = []
    for kind in ("CT", "MR"):
        case = f"1x{kind}"
        ours, unsynced = (found.get((case, name, MEDIAN_IMAGE)) for name in (OURS, UNSYNCED))
        sync = found.get((case, DISK, SYNC))
        law = None if None in (ours, unsynced, sync) else ours / (unsynced + sync)  # type: ignore[operator]
        judged.append(Goal(case, f"{case}: T / (T0 + S)", _LAW, law, at_most=True, gate=True))
    for kind in ("CT", "MR"):
        name = f"3ms-{kind}/orthanc"
        judged.append(Goal(f"3ms-{kind}", name, _SLOW_DISK, ratios.get(name), gate=True))
    quiet = found.get(("1xMR", DISK, SYNC))
    applies = quiet is None or quiet <= QUIET_DISK_MS
    judged += [
        Goal(name.partition("/")[0], name, least, ratios.get(name), applies=applies) for name, least in _RATIO_GOALS.items()
    ]
    bounds = (("1GB", GROWTH, _GROWTH_MB), ("16xCT", PEAK, _PEAK_MB), ("16xMR", PEAK, _PEAK_MB), ("start", SECONDS, _START_S))
    for case, unit, bound in bounds:
        judged.append(Goal(case, f"{case}: {unit}", bound, found.get((case, OURS, unit)), at_most=True, unit=unit))
    return judged
