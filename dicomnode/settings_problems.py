"""What is wrong with settings, each as one line: what, and what to do about it."""

import difflib
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from dicomnode.domain.canary import CANARY
from dicomnode.domain.errors import SettingsError
from dicomnode.domain.profiles import SHIPPED, ResultKind
from dicomnode.domain.received import INDEXED_KEYWORDS

if TYPE_CHECKING:
    from dicomnode.settings import DestinationSettings, RouteSettings, Settings
    from dicomnode.settings_profiles import ProfileSettings

PREFIX = "DICOMNODE_"
CONFIG_VARIABLE = "DICOMNODE_CONFIG"
# Variables with our prefix that are no settings.
OTHER_VARIABLES = frozenset({CONFIG_VARIABLE, "DICOMNODE_TEST_DATA"})
# What a route may match: what receiving indexes, and the AE title under which we were called.
MATCH_KEYWORDS = (*INDEXED_KEYWORDS, "CalledAETitle")


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The section model inside an annotation such as `tuple[PeerSettings, ...]` or `Tls | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for one in get_args(annotation) if (model := _model_in(one))), None)


def _fields_at(settings: type[BaseModel], location: Iterable[int | str]) -> tuple[str, ...]:
    """The keys that are known at a place of the settings."""
    model: type[BaseModel] | None = settings
    for part in location:
        if model is not None and isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation)
    return tuple(model.model_fields) if model else ()


def _place(location: Iterable[int | str]) -> str:
    """('peers', 0, 'port') → "peers[1].port"; the count is 1-based, as people count tables."""
    text = ""
    for part in location:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that is most like `word`; "" if nothing is known."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.0)), "")


def variable_of(location: Iterable[int | str]) -> str:
    """The variable that sets this place: ("node", "ae_title") → DICOMNODE_NODE__AE_TITLE."""
    return PREFIX + "__".join(str(part).upper() for part in location)


def _sets(variable: str, location: tuple[int | str, ...]) -> bool:
    """Whether this variable of the environment gave the value at `location`."""
    place = variable_of(location)
    return variable.upper() == place or place.startswith(f"{variable.upper()}__")


def explain(settings: type[BaseModel], error: ErrorDetails, where: str) -> SettingsError:
    """pydantic's words as ours."""
    location = error["loc"]
    place = _place(location)
    where = next((f"the variable {one}" for one in os.environ if _sets(one, location)), where)
    if error["type"] == "extra_forbidden":
        near = nearest(str(location[-1]), _fields_at(settings, location[:-1]))
        return SettingsError(
            f"unknown setting {place}", f"the nearest one is {_place((*location[:-1], near))}: correct it in {where}"
        )
    if error["type"] == "missing":
        return SettingsError(f"setting {place} is missing", f"add it in {where}")
    if error["type"] == "tuple_type":
        table = location in {("peers",), ("profiles",), ("destinations",), ("routes",)}
        remedy = f"write [[{place}]] instead of [{place}]" if table else f"put what {place} names in brackets, [ … ],"
        return SettingsError(f"setting {place} is wrong: it must be a list", f"{remedy} in {where}")
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    given = "" if place == "database.url" else f" (it is {error['input']!r:.80})"  # a URL may hold a password
    return SettingsError(f"setting {place} is wrong: {message}{given}", f"correct it in {where}")


def unknown_variables(settings: type[BaseModel], environment: Mapping[str, str]) -> Iterable[SettingsError]:
    """Variables with our prefix that set nothing."""
    known = [f"{PREFIX}{name}".upper() for name in settings.model_fields]
    for name, field in settings.model_fields.items():
        if (model := _model_in(field.annotation)) and isinstance(field.annotation, type):
            known += [f"{PREFIX}{name}__{key}".upper() for key in model.model_fields]
    for variable in sorted(environment):
        upper = variable.upper()
        if (
            not upper.startswith(PREFIX)
            or upper in OTHER_VARIABLES
            or upper in known
            or upper.startswith(f"{PREFIX}DICOM__TLS__")
        ):
            continue
        yield SettingsError(f"unknown variable {variable}", f"the nearest one is {nearest(upper, known)}: correct or unset it")


def contradictions(settings: "Settings", where: str) -> Iterable[SettingsError]:
    """What no single key shows: names that are used twice or that name nothing."""
    for table in ("peers", "profiles", "destinations", "routes"):
        counts = Counter(one.name for one in getattr(settings, table))
        for name in (name for name, count in counts.items() if count > 1):
            yield SettingsError(f"two {table} are called {name!r}", f"give each its own name in {where}")
    profiles = list(SHIPPED)
    for profile in settings.profiles:
        if profile.name in SHIPPED:
            yield SettingsError(f"profile {profile.name!r} is a shipped one", f"give yours another name in {where}")
        if profile.like not in profiles:
            yield _names_nothing(f"profile {profile.name!r}", "profile", profile.like, profiles, where)
        profiles.append(profile.name)
    for destination in settings.destinations:
        if destination.profile not in profiles:
            yield _names_nothing(f"destination {destination.name!r}", "profile", destination.profile, profiles, where)
        else:
            yield from _kinds_problems(destination, _kinds_of(destination.profile, settings.profiles), where)
        yield from _destination_problems(destination, [peer.name for peer in settings.peers], where)
    for route in settings.routes:
        yield from _route_problems(route, [destination.name for destination in settings.destinations], where)
        if route.count_at and route.count_at not in (names := [peer.name for peer in settings.peers]):
            yield _names_nothing(f"route {route.name!r}", "peer", route.count_at, names, where)
    yield from _canary_problems(settings, where)


def _canary_problems(settings: "Settings", where: str) -> Iterable[SettingsError]:
    destinations = [destination.name for destination in settings.destinations]
    for name in settings.canary.send_to:
        if name not in destinations:
            yield _names_nothing("canary", "destination", name, destinations, where)
    if (settings.canary.certificate is None) != (settings.canary.key is None):
        yield SettingsError("canary.certificate and canary.key belong together", f"set both, or none, in {where}")
    if settings.canary.every_h and CANARY in (*destinations, *(route.name for route in settings.routes)):
        yield SettingsError(f"{CANARY!r} is the name of the canary's own route and folder", f"choose another name in {where}")


def _names_nothing(what: str, kind: str, name: str, known: list[str], where: str) -> SettingsError:
    remedy = f"the nearest one is {nearest(name, known)!r}: correct it" if known else f"add a [[{kind}s]] table with this name"
    return SettingsError(f"{what} names {kind} {name!r}, which does not exist", f"{remedy} in {where}")


def _destination_problems(destination: "DestinationSettings", peers: list[str], where: str) -> Iterable[SettingsError]:
    what = f"destination {destination.name!r}"
    needed = {"dicom": "peer", "folder": "path", "stow": "url", "fhir": "url"}[destination.kind]
    for key in ("peer", "path", "url"):
        given = getattr(destination, key) is not None
        if key == needed and not given:
            yield SettingsError(f"{what} of kind {destination.kind!r} has no {key}", f"add {key} = … in {where}")
        if key != needed and given:
            yield SettingsError(
                f"{what} of kind {destination.kind!r} has a {key}", f"remove {key}, or change the kind, in {where}"
            )
    if destination.kind == "dicom" and destination.peer is not None and destination.peer not in peers:
        yield _names_nothing(what, "peer", destination.peer, peers, where)
    if destination.kind == "folder" and destination.proof != "status":
        yield SettingsError(
            f"{what} of kind 'folder' cannot give proof {destination.proof!r}", f'set proof = "status" in {where}'
        )


def _kinds_of(name: str, tables: "Sequence[ProfileSettings]") -> Sequence[ResultKind]:
    """The kinds of a profile that exists: its own, else those of the one that it is like."""
    for place, one in enumerate(tables):
        if one.name == name:
            return one.kinds if one.kinds is not None else _kinds_of(one.like, tables[:place])
    return SHIPPED[name].kinds if name in SHIPPED else ()


def _kinds_problems(destination: "DestinationSettings", kinds: Sequence[ResultKind], where: str) -> Iterable[SettingsError]:
    """A FHIR server takes bundles alone, a PACS takes none; a folder takes all."""
    what = f"destination {destination.name!r}"
    if destination.kind == "fhir" and set(kinds) != {ResultKind.FHIR}:
        yield SettingsError(f"{what} of kind 'fhir' has a profile of DICOM objects", f'set profile = "fhir" in {where}')
    if destination.kind in ("dicom", "stow") and ResultKind.FHIR in kinds:
        remedy = f'send FHIR to a destination of kind "fhir" or "folder" in {where}'
        yield SettingsError(f"{what} of kind {destination.kind!r} has a profile with FHIR bundles", remedy)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _route_problems(route: "RouteSettings", destinations: list[str], where: str) -> Iterable[SettingsError]:
    what = f"route {route.name!r}"
    for name in route.send_to:
        if name not in destinations:
            yield _names_nothing(what, "destination", name, destinations, where)
    for keyword in route.match:
        if keyword not in MATCH_KEYWORDS:
            yield SettingsError(
                f"{what} matches {keyword!r}, which is no indexed DICOM keyword",
                f"the nearest one is {nearest(keyword, MATCH_KEYWORDS)}: correct it in {where}",
            )
    for keyword, values in route.match.items():
        for value in values:
            if value.startswith(("<", ">")) and not _is_number(value.lstrip("<>").removeprefix("=")):
                yield SettingsError(
                    f"{what} compares {keyword} with {value!r}, which is no number", f'write it as "<=3.0" in {where}'
                )
    if route.max_wait_s < route.quiet_s:
        yield SettingsError(f"{what} has max_wait_s below quiet_s", f"raise max_wait_s to {route.quiet_s:g} or more in {where}")
