"""Which sets of objects are made: one for each profile, and one more for each combination of its fallbacks."""

from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from dicomnode.domain.profiles import Fallback, ResultKind
from dicomnode.domain.results import ResultObject
from dicomnode.results.context import Context


@dataclass(slots=True)
class ResultSet:
    """The objects of one profile in one form, kind by kind.

    before: the set of which this one is the fallback, and the kind whose refusal leads here; None for a profile's own form.
    """

    context: Context
    before: "tuple[ResultSet, ResultKind] | None" = None
    datasets: dict[ResultKind, list[Any]] = field(default_factory=dict)
    objects: dict[ResultKind, list[ResultObject]] = field(default_factory=dict)


def sets_of(context: Context) -> list[ResultSet]:
    """Each profile of the request as it is, then with its fallbacks: a report names the segmentation that really went."""
    found: list[ResultSet] = []
    for profile in context.request.profiles:
        own = replace(context, profile=profile)
        order = list(ResultKind)
        fallbacks = sorted((one for one in profile.fallbacks if one.kind in own.kinds), key=lambda one: order.index(one.kind))
        by_fallbacks: dict[tuple[Fallback, ...], ResultSet] = {}
        for count in range(len(fallbacks) + 1):
            for some in combinations(fallbacks, count):
                form = profile if not some else by_fallbacks[some[:-1]].context.profile.after(some[-1])
                before = (by_fallbacks[some[:-1]], some[-1].kind) if some else None
                by_fallbacks[some] = ResultSet(replace(context, profile=form), before)
        found += by_fallbacks.values()
    return found


def with_place(sets: list[ResultSet]) -> tuple[ResultObject, ...]:
    """Every object once, in the order of sending, with the profiles that get it at once or in place of which others."""
    placed: dict[str, ResultObject] = {}
    for one in sets:
        name = one.context.profile.name
        for kind, objects in one.objects.items():
            for each in objects:
                known = placed.get(each.sop_instance_uid, replace(each, profiles=()))
                placed[each.sop_instance_uid] = _placed(known, one, kind, name)
    return tuple(sorted(placed.values(), key=lambda each: each.order))


def _placed(known: ResultObject, one: ResultSet, kind: ResultKind, name: str) -> ResultObject:
    if one.before is None:
        return replace(known, profiles=(*(known.profiles or ()), name))
    earlier, refused = one.before
    replaced = tuple(each.sop_instance_uid for each in earlier.objects.get(kind, []))
    if known.sop_instance_uid in replaced or not earlier.objects.get(refused):
        return known
    return replace(
        known,
        fallback_profiles=(*known.fallback_profiles, name),
        replaces=tuple(dict.fromkeys((*known.replaces, *replaced))),
        when_refused=earlier.objects[refused][0].sop_class_uid,
    )
