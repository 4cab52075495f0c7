"""The settings file: in comes TOML plus `DICOMNODE_SECTION__KEY` variables (which win), out goes one frozen `Settings`.

Promises: a wrong setting stops the start with one line that names the place and the remedy; unknown keys and variables name the
nearest known one; relative paths count from the settings file's folder. Names are the outside contract: add, never rename.
"""

import os
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableVariable

from dicomnode.domain.errors import SettingsError
from dicomnode.domain.profiles import DEFAULT_KINDS, ResultKind
from dicomnode.settings_problems import (
    CONFIG_VARIABLE,
    PREFIX,
    contradictions,
    explain,
    unknown_variables,
    variable_of,
)
from dicomnode.settings_profiles import ProfileSettings
from dicomnode.settings_values import (
    AETitle,
    Device,
    Host,
    Name,
    Port,
    Seconds,
    SopClass,
    Texts,
    TransferSyntax,
    database_url_text,
    uid_root_text,
    zone,
)

PLACES = (Path("dicomnode.toml"), Path("/etc/dicomnode/dicomnode.toml"))


def shipped(name: Literal["pipelines", "db"]) -> Path:
    """The folder `pipelines/` or `db/` that came with the software: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "shipped" / name
    return inside if inside.is_dir() else package.parent / name


class Section(BaseModel):
    """A table of the settings file: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Node(Section):
    """Who we are and where our data are."""

    ae_title: AETitle = "DICOMNODE"
    data_dir: Path = Path("/var/lib/dicomnode")
    name: Name | None = None  # who holds a lease, where several machines share a database; None: the machine's host name
    timezone: Annotated[str | None, AfterValidator(zone)] = None  # of DA/TM in results where the source names none
    uid_root: Annotated[str | None, AfterValidator(uid_root_text)] = None


class Database(Section):
    """Where the rows are. None: an SQLite file in `data_dir`."""

    url: Annotated[str | None, AfterValidator(database_url_text)] = None


class Tls(Section):
    """Certificates of the DICOM listener."""

    certificate: Path
    key: Path
    ca: Path | None = None
    require_client: bool = True


class Dicom(Section):
    """Our DICOM listener. Loopback until peers are listed."""

    host: Host = "127.0.0.1"
    port: Port = 11112
    also_called: tuple[AETitle, ...] = ()
    tls: Tls | None = None
    extra_sop_classes: tuple[SopClass, ...] = ()  # private storage classes, by UID, besides those of the standard
    transfer_syntaxes: tuple[TransferSyntax, ...] = ()  # which to choose first, UIDs or keywords; all others follow
    network_timeout_s: Seconds = 60.0  # silence after which an association is given up
    max_associations: Annotated[int, Field(ge=1, le=1000)] = 25


class Web(Section):
    """The console's listener; the role is not built yet, its keys are kept."""

    host: str = "127.0.0.1"
    port: Port = 8080


class Pipelines(Section):
    """Where pipelines are searched, before `data_dir/pipelines` and the shipped ones."""

    folders: tuple[Path, ...] = ()
    trusted: tuple[str, ...] = ()  # digests of pipelines that may run although they were not shipped


class Work(Section):
    """The worker: which device, how long a job may take before it counts as hung."""

    device: Device = "auto"
    lease_s: Seconds = 60.0
    job_timeout_s: Seconds = 3600.0
    memory_mb: Annotated[int, Field(ge=0)] = 0  # for the worker's process; 0: 80 % of the machine's, on a GPU no limit
    drain_s: Seconds = 30.0  # how long a running job may go on after SIGTERM before its attempt is given back


class Storage(Section):
    """Bytes at rest. Below `reserve_mb` free nothing more is accepted (A700).

    order: how an instance becomes durable. parallel: its file is synced beside its row; serial: temporary file, rename, folder,
    then the row, for file systems that need it.
    """

    reserve_mb: Annotated[int, Field(ge=0)] = 512
    order: Literal["parallel", "serial"] = "parallel"
    reserve_file_mb: Annotated[int, Field(ge=0)] = 64  # given up when the disk is full, so that the database can still write


class Sweep(Section):
    """How often completeness, lost leases and leftovers are looked at."""

    interval_s: Seconds = 2.0


Days = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # 0: for ever


class Retention(Section):
    """How long what is done and sent is kept; nothing unsent is ever purged. 0 days: for ever.

    free_percent: with less of the disk free, the oldest goes before its time, but nothing younger than `at_least_hours`.
    """

    sources_days: Days = 30.0  # images, after the last one of their study came
    results_days: Days = 90.0  # our copies of results, after their job ended
    rows_days: Days = 365.0  # rows of purged images: so long the same image again makes no new work
    audit_days: Days = 180.0  # then audit rows move to data_dir/audit, a file a month
    free_percent: Annotated[float, Field(ge=0, le=90)] = 10.0
    at_least_hours: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 24.0


class Commitment(Section):
    """Storage commitment as SCP, for peers that may "commit": modalities delete what was committed."""

    serve: bool = False
    keep_days: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 365.0  # how long committed instances are not purged


class Archive(Section):
    """Query/Retrieve, for peers that may "query" or "retrieve"."""

    max_matches: Annotated[int, Field(ge=1)] = 10_000  # of one C-FIND; then it ends with A700
    max_retrievals: Annotated[int, Field(ge=1, le=100)] = 4  # C-MOVEs and C-GETs at once; more are answered A702


class Canary(Section):
    """A phantom that the node sends to itself; its result must come out, into `data_dir/canary`. 0 hours: never."""

    every_h: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    within_min: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0  # then it is an alarm
    pipeline: str = "chest_ct"
    send_to: tuple[str, ...] = ()  # destinations that get its results too
    certificate: Path | None = None  # what it shows to a listener that asks for one; else the listener's own
    key: Path | None = None


class Alarms(Section):
    """When what stands in `status` becomes an alarm; all others need no number."""

    queue_min: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0  # the oldest job that may run waits for longer
    certificate_days: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0  # before the listener's certificate ends
    failed_days: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 7.0  # how long a job that failed is one


class Logs(Section):
    """Operational logs on stderr: key=value on a terminal, JSON elsewhere, unless said."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"


class PeerSettings(Section):
    """Who may talk to us, and whom we may call."""

    name: Name
    ae_title: AETitle
    host: Host
    port: Port
    may: frozenset[Literal["store", "query", "retrieve", "commit", "reject", "announce"]] = frozenset()
    tls: bool = False  # we call it by TLS, with the certificates of dicom.tls


class DestinationSettings(Section):
    """Where results go: `peer` for dicom, `path` for folder, `url` for stow and fhir."""

    name: Name
    kind: Literal["dicom", "stow", "folder", "fhir"] = "dicom"
    peer: str | None = None
    url: str | None = None
    path: Path | None = None
    profile: str = "ohif"  # a shipped one, or one of `profiles`
    proof: Literal["commitment", "find", "status"] = "status"
    accept_demonstration: bool = False


class RouteSettings(Section):
    """Which studies go through which pipeline, and where the results go."""

    name: Name
    match: dict[str, Texts]
    pipeline: str
    speed: Literal["exact", "fast"] = "exact"
    select: Literal["best", "each"] = "best"
    send_to: tuple[str, ...]
    results: tuple[ResultKind, ...] = DEFAULT_KINDS
    quiet_s: Seconds = 10.0
    max_wait_s: Seconds = 600.0
    send_not_run: bool = True
    count_at: str = ""  # peer that is asked how many images it lists (C-FIND) when a series falls silent
    priority: Annotated[int, Field(ge=-100, le=100)] = 0  # a step is worth ten minutes of waiting in the queue
    allow_many_frames_of_reference: bool = False
    draw_identity: bool = False  # name, ID and dates in the pixels of captures


class Settings(BaseSettings):
    """All settings of one node."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True)

    node: Node = Node()
    database: Database = Database()
    dicom: Dicom = Dicom()
    web: Web = Web()
    pipelines: Pipelines = Pipelines()
    work: Work = Work()
    storage: Storage = Storage()
    sweep: Sweep = Sweep()
    retention: Retention = Retention()
    canary: Canary = Canary()
    commitment: Commitment = Commitment()
    archive: Archive = Archive()
    alarms: Alarms = Alarms()
    logs: Logs = Logs()
    peers: tuple[PeerSettings, ...] = ()
    profiles: tuple[ProfileSettings, ...] = ()
    destinations: tuple[DestinationSettings, ...] = ()
    routes: tuple[RouteSettings, ...] = ()

    _source: Path | None = PrivateAttr(None)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Variables win over the file (which comes in as keyword arguments)."""
        return env_settings, init_settings

    @property
    def source(self) -> Path | None:
        """The settings file that was read; None: defaults and variables only."""
        return self._source

    @property
    def data_dir(self) -> Path:
        """`node.data_dir`, absolute."""
        return self._absolute(self.node.data_dir)

    @property
    def database_url(self) -> str:
        """The database's URL; a relative SQLite path counts from the settings file's folder."""
        url = self.database.url
        if url is None:
            return f"sqlite:///{self.data_dir / 'dicomnode.db'}"
        scheme, separator, path = url.partition(":///")
        if separator and scheme.startswith("sqlite") and path and not path.startswith(("/", ":")):
            return f"{scheme}:///{self._absolute(Path(path))}"
        return url

    @property
    def node_name(self) -> str:
        """`node.name`, else the machine's host name: no two nodes on one database may have the same."""
        return self.node.name or socket.gethostname()

    @property
    def timezone(self) -> str:
        """`node.timezone`, else the machine's zone, else UTC."""
        return self.node.timezone or machine_timezone()

    @property
    def pipeline_folders(self) -> tuple[Path, ...]:
        """Where pipelines are searched, in this order: the settings', those that were added, the shipped ones."""
        return (*map(self._absolute, self.pipelines.folders), self.data_dir / "pipelines", shipped("pipelines"))

    def absolute(self, path: Path) -> Path:
        """`path` as the settings file means it."""
        return self._absolute(path)

    def _absolute(self, path: Path) -> Path:
        base = self._source.parent if self._source else Path.cwd()
        return (base / path.expanduser()).absolute()


def machine_timezone() -> str:
    """The IANA name of this machine's time zone: $TZ, else where /etc/localtime points, else UTC."""
    for name in (os.environ.get("TZ", "").lstrip(":"), str(Path("/etc/localtime").resolve()).partition("/zoneinfo/")[2]):
        try:
            if name:
                return ZoneInfo(name).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            continue
    return "UTC"


def find_settings_file(path: Path | None = None, environment: Mapping[str, str] = os.environ) -> Path | None:
    """The file that counts: `path` (--config), $DICOMNODE_CONFIG, then the first of PLACES that exists; None if none."""
    if path is not None:
        return path
    if environment.get(CONFIG_VARIABLE):
        return Path(environment[CONFIG_VARIABLE])
    return next((place for place in PLACES if place.is_file()), None)


def load_settings(path: Path | None = None, *, required: bool = True) -> Settings:
    """The settings of file and environment, checked.

    `required`: without any file raise instead of taking the defaults. Raises SettingsError for the first problem and says how
    many more there are; `read_settings` gives all.
    """
    settings, problems = read_settings(path, required=required)
    if problems:
        first, others = problems[0], len(problems) - 1
        more = f"; {others} more: dicomnode check names all" if others else ""
        raise SettingsError(first.what, first.remedy + more)
    assert settings is not None  # noqa: S101 - no problems means settings
    return settings


def read_settings(path: Path | None = None, *, required: bool = True) -> tuple[Settings | None, tuple[SettingsError, ...]]:
    """The settings, or None, and every problem found in them."""
    found = find_settings_file(path)
    if found is None and required:
        return None, (
            SettingsError("no settings file was found", "write one with: dicomnode init, or name one with --config FILE"),
        )
    try:
        values = _read_toml(found) if found else {}
    except SettingsError as error:
        return None, (error,)
    where = str(found) if found else "the environment"
    problems = tuple(unknown_variables(Settings, os.environ))
    try:
        settings = Settings(**values)
    except ValidationError as error:
        # An unknown variable is named already, by its own name.
        named = {problem.what.rpartition(" ")[2].upper() for problem in problems}
        errors = [one for one in error.errors(include_url=False) if variable_of(one["loc"]) not in named]
        return None, (*problems, *(explain(Settings, one, where) for one in errors))
    except UnreadableVariable as error:
        return None, (
            *problems,
            SettingsError(f"{error}".replace("\n", " "), f"lists in {PREFIX}… variables are JSON: correct it"),
        )
    settings._source = found.absolute() if found else None  # noqa: SLF001 - set once, here
    return settings, (*problems, *contradictions(settings, where))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SettingsError(
            f"settings file {path} does not exist", "write it with: dicomnode init, or correct --config"
        ) from None
    except OSError as error:
        raise SettingsError(f"settings file {path} cannot be read: {error.strerror}", "give its reader permission") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {path} is no TOML: {error}", "correct the line that it names") from None
