"""One paragraph for people, made of nothing but the JSON of `explain`: what came, what was waited for, what ran, what left."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from dicomnode.registry.in_short import in_short

type_json = Mapping[str, Any]


def paragraph(answer: type_json) -> str:
    """The whole story in plain English, times in UTC; how it stands comes first."""
    foreign = [one for one in answer["series"] if not one["ours"]]
    jobs = [job for one in answer["series"] for job in one["jobs"]]
    deliveries = [delivery for one in answer["series"] for delivery in one["deliveries"]]
    sentences = [
        in_short(answer),
        _arrival(answer, foreign),
        *_other_titles(foreign),
        *_ours(answer["series"]),
        *_purged(answer),
        *_holds(answer),
        *_stale(answer["series"]),
        *_announced(answer["announcements"]),
        *_completion(foreign),
        *_routes(answer["key"], foreign, jobs),
        *(
            sentence
            for one in answer["series"]
            for job in one["jobs"]
            for sentence in _job(job, deliveries, _hold(answer, one))
        ),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _hold(answer: type_json, series: type_json) -> str:
    """Whose hold the jobs of a series wait for; "" for nobody's."""
    return "the study" if answer["held"] else series["key"] if series["held"] else ""


def _arrival(answer: type_json, foreign: Sequence[type_json]) -> str:
    if not foreign:
        return f"Study {answer['key']} holds nothing but results."
    modalities = Counter(one["modality"] or "without modality" for one in foreign)
    instances = sum(one["instances"] for one in foreign)
    sources = {(one["from"]["calling_ae"], one["from"]["address"]) for one in foreign}
    senders = _list(f"{ae or 'an unnamed sender'} ({address})" if address else ae for ae, address in sorted(sources))
    first = min(one["evidence"]["first_arrival_at"] for one in foreign)
    last = max(one["evidence"]["last_arrival_at"] for one in foreign)
    kinds = _list(f"{count} {modality}" for modality, count in sorted(modalities.items()))
    return (
        f"Study {answer['key']} came from {senders} {_between(first, last)}: "
        f"{_count(len(foreign), 'series', 'series')} ({kinds}) with {_count(instances, 'instance')}."
    )


def _ours(series: Sequence[type_json]) -> Iterable[str]:
    ours = [one["key"] for one in series if one["ours"]]
    if ours:
        verb, it = ("holds", "it starts") if len(ours) == 1 else ("hold", "they start")
        yield f"{_list(ours)} {verb} results of this software that were sent to us; {it} no new work."


def _purged(answer: type_json) -> Iterable[str]:
    if answer["purged_at"]:
        on = f"{datetime.fromisoformat(answer['purged_at']):%Y-%m-%d}"
        yield f"Its images were removed on {on}, after they had been kept long enough; what was made of them is told below."


def _other_titles(foreign: Sequence[type_json]) -> Iterable[str]:
    said: dict[tuple[str, ...], list[str]] = {}
    for one in foreign:
        if one["also_called"]:
            said.setdefault((one["from"]["called_ae"], *one["also_called"]), []).append(one["key"])
    for titles, names in said.items():
        yield f"{_list(names)} {'was' if len(names) == 1 else 'were'} sent to {_list(titles)}."


def _holds(answer: type_json) -> Iterable[str]:
    key = answer["key"]
    if answer["held"]:
        yield (
            f"The study is held because {answer['held']}: no job starts and no result leaves until an operator has looked "
            f"and runs `dicomnode retry {key}` (the newer header is right) or `dicomnode cancel {key}` (what is stored is)."
        )
    for one in answer["series"]:
        if one["held"]:
            name = one["key"]
            yield (
                f"{name} is held because {one['held']}: its job waits until an operator has found out which images are right. "
                f"`dicomnode retry {name}` lets it go on with what is stored; what contradicts that stays in quarantine."
            )


def _stale(series: Sequence[type_json]) -> Iterable[str]:
    reasons: dict[str, list[str]] = {}
    for result in (result for one in series for result in one["results"] if result["stale"]):
        reasons.setdefault(result["stale"], []).append(result["job"])
    for why, jobs in reasons.items():
        yield f"Because {why}, its results no longer say what is known ({_list(dict.fromkeys(jobs))})."


def _announced(announcements: Sequence[type_json]) -> Iterable[str]:
    """What modalities and archives said themselves."""
    for one in announcements:
        at = _time(one["changed_at"])
        if one["status"] == "IN PROGRESS":
            yield f"{one['peer']} said at {_time(one['received_at'])} that the examination began (MPPS), not yet that it ended."
        elif one["status"] == "DISCONTINUED":
            why = f": {one['reason'].rstrip('.')}" if one["reason"] else ""
            yield f"{one['peer']} said at {at} that the examination was broken off (MPPS{why}); what it made may be incomplete."
        else:
            said = "that the examination is complete (MPPS)" if one["kind"] == "mpps" else "that images are available (IAN)"
            named = f"with {_count(one['instances'], 'instance')} in {_count(one['series'], 'series', 'series')}"
            here = "all are here" if not one["missing"] else f"{one['missing']} of them did not come: let them be sent again"
            yield f"{one['peer']} said at {at} {said}{f', {named}; {here}' if one['instances'] else ', and named none'}."


def _completion(foreign: Sequence[type_json]) -> Iterable[str]:
    """One sentence for all series of which the same is to be said; {is}, {was} and {waits} agree with their number."""
    said: dict[str, list[str]] = {}
    for one in foreign:
        evidence, again = one["evidence"], one["evidence"].get("reopened", 0)
        why, waits_for = evidence.get("why", ""), evidence.get("waits_for")
        if one["state"] == "arriving":
            most = f", at most {evidence['waits_at_most_s']:g} s in all" if evidence.get("waits_at_most_s") else ""
            words = (
                "{is} still arriving and {waits} for " + waits_for + most
                if waits_for
                else "{is} still arriving, not judged yet"
            )
        elif evidence.get("forced"):
            words = f"{{was}} taken as complete by force at {_time(evidence['completed_at'])}: {why}"
        else:
            words = f"{{was}} complete at {_time(evidence['completed_at'])}: {why}"
        words = f"{{was}} reopened {_times(again)} by late images and {words}" if again else words
        said.setdefault(words, []).append(one["key"])
    for words, names in said.items():
        forms = ("is", "was", "waits") if len(names) == 1 else ("are", "were", "wait")
        for place, form in zip(("{is}", "{was}", "{waits}"), forms, strict=True):
            words = words.replace(place, form)  # noqa: PLW2901
        yield f"{_list(names)} {words.rstrip(': ')}."


def _routes(key: str, foreign: Sequence[type_json], jobs: Sequence[type_json]) -> Iterable[str]:
    verdicts = [(one, verdict) for one in foreign for verdict in one["routes"]]
    if not verdicts:
        if foreign and all(one["state"] == "complete" for one in foreign) and not jobs:
            yield "No route is set up, so nothing was run; add [[routes]] to the settings."
        return
    for route in dict.fromkeys(verdict["route"] for _, verdict in verdicts):
        of_route = [(one, verdict) for one, verdict in verdicts if verdict["route"] == route]
        yield from _route(route, of_route)
    if not any(verdict["matched"] for _, verdict in verdicts):
        yield (
            "So no route takes this study and no AI ran on it; if one should, correct its match in the settings, then run "
            f"`dicomnode reprocess {key}`."
        )


def _route(route: str, verdicts: Sequence[tuple[type_json, type_json]]) -> Iterable[str]:
    chosen = [(one, verdict) for one, verdict in verdicts if verdict["chosen"]]
    losers = [(one, verdict) for one, verdict in verdicts if verdict["matched"] and not verdict["chosen"]]
    strangers = [(one, verdict) for one, verdict in verdicts if not verdict["matched"]]
    for one, verdict in chosen:
        yield f"Route {route} chose {_name(one)}: {verdict['why']}."
    if losers:
        verb = "It did not choose" if chosen else f"Route {route} matched, but cannot use,"
        yield f"{verb} {_reasons(losers)}."
    if strangers:
        yield f"Route {route} does not match {_reasons(strangers)}."


def _reasons(verdicts: Iterable[tuple[type_json, type_json]]) -> str:
    return "; ".join(f"{_name(one)}: {verdict['why']}" for one, verdict in verdicts)


def _name(one: type_json) -> str:
    label = f" “{one['description']}”" if one["description"] else ""
    return f"{one['key']}{label}"


def _job(job: type_json, deliveries: Sequence[type_json], hold: str = "") -> Iterable[str]:
    name, what = job["id"], f"{job['pipeline']}, version {job['version']}"
    state, reason = job["state"], job["reason"].rstrip(".")
    if state == "superseded":
        took = f" {job['replaced_by']} took its place." if job["replaced_by"] else ""
        ended = f" after it had ended as {_outcome(job)}" if job["outcome"] else " before it ended"
        why = f": {job['superseded_because']}" if job["superseded_because"] else ""
        yield f"Job {name} ({what}) was superseded{ended}{why}.{took}"
    elif state == "queued":
        yield _queued(job, name, what, reason) if not hold else f"Job {name} ({what}) waits because {hold} is held."
    elif state == "running":
        yield f"Job {name} ({what}) has been running since {_time(job['started_at'])}, attempt {job['attempt']}."
    elif state == "done":
        seconds = sum(value for value in job["timings_s"].values() if isinstance(value, int | float))
        yield f"Job {name} ({what}) is done{f' in {seconds:.1f} s' if seconds else ''}: {_findings(job['findings'])}."
        yield from (f"Warning: {str(text).rstrip('.')}." for text in (job["findings"] or {}).get("warnings") or ())
        yield from _how_it_ran((job["findings"] or {}).get("run") or {})
    elif state == "refused":
        remedy = f" What to do: {job['remedy'].rstrip('.')}." if job["remedy"] else ""
        yield f"Job {name} ({what}) was not run ({job['reason_code']}): {reason}.{remedy}"
    elif state == "failed":
        look = "see what the log says of role work at that time, memory first" if job["reason_code"] == "poison" else ""
        remedy = f" What to do: {(job['remedy'] or look).rstrip('.')}." if job["remedy"] or look else ""
        yield f"Job {name} ({what}) failed ({job['reason_code']}): {reason}.{remedy} `dicomnode retry {name}` runs it again."
    else:
        by = f": {reason}" if reason else " by an operator"
        yield f"Job {name} ({what}) was cancelled{by}; `dicomnode retry {name}` runs it after all."
    yield from (f"Note: {str(note).rstrip('.')}." for note in job["notes"])
    held = "the study is held" if hold == "the study" else ""
    yield from _sent(job, [one for one in deliveries if one["job"] == name], held)


def _how_it_ran(run: Mapping[str, str]) -> Iterable[str]:
    """What was not as it was asked for: less memory than the model wanted, another speed than the route's."""
    if "fell back" in run:
        yield f"The network fell back: {run['fell back']}; it ran in {run['way']}."
    if run.get("speed") == "exact" and run.get("self-test", "").startswith("failed"):
        yield f"It ran exactly although the route asks for fast: the model's self-test {run['self-test']}."


def _outcome(job: type_json) -> str:
    return "done" if job["outcome"] == "finished" else str(job["outcome"])


def _queued(job: type_json, name: str, what: str, reason: str) -> str:
    if job["held"]:
        return f"Job {name} ({what}) waits for an operator because {job['held']}; `dicomnode retry {name}` lets it go on."
    if not job["attempt"]:
        return f"Job {name} ({what}) is queued."
    pause = job["next_attempt_in_s"]
    later = f", due in {pause:.0f} s," if pause else ""
    why = reason or "it was broken off"
    return f"Job {name} ({what}) is queued for attempt {job['attempt'] + 1}{later} because the last one came to no end: {why}."


def _findings(findings: type_json | None) -> str:
    if not findings:
        return "nothing is recorded of its findings"
    parts = []
    lesions = findings.get("lesions")
    if isinstance(lesions, list):
        parts.append(_count(len(lesions), "lesion") if lesions else "no lesion")
    for one in findings.get("classifications") or ():
        probability = one.get("probability")
        chance = f" (probability {probability:.2f})" if isinstance(probability, int | float) else ""
        parts.append(f"{one.get('name', 'finding')} {one.get('value', '')}{chance}".strip())
    for one in findings.get("segments") or ():
        volume = one.get("volume_ml")
        if isinstance(volume, int | float):
            parts.append(
                f"{one.get('label', 'segment')} {volume:.0f} ml" if volume >= 10 else f"{one.get('label')} {volume:.2f} ml"
            )
    return ", ".join(parts) or "its findings are in the results"


_DELIVERY_WORDS = {
    "waiting": "waits to be sent to {to}",
    "sending": "is being sent to {to}",
    "sent": "was accepted by {to}",
    "confirmed": "was accepted by {to} and is proved to be there",
    "rejected": "was rejected by {to}",
    "held": "is held back from {to}",
    "cancelled": "will not be sent to {to}",
}


def _sent(job: type_json, deliveries: Sequence[type_json], held: str) -> Iterable[str]:
    groups: dict[tuple[str, str, str, str], list[type_json]] = {}
    for one in deliveries:
        groups.setdefault((one["destination"], one["state"], one["last_error"], one["proof"]), []).append(one)
    for (destination, state, error, proof), members in groups.items():
        words = _DELIVERY_WORDS[state].format(to=destination)
        subject = _kinds(one["kind"] for one in members)
        if len(members) > 1:
            for singular, plural in (("waits", "wait"), ("was ", "were "), ("is ", "are ")):
                words = words.replace(singular, plural)
        proved = f" ({proof})" if proof else ""
        wrong = f" ({error.rstrip('.')})" if error else ""
        ids = _keys([one["id"] for one in members])
        act = f"; `dicomnode retry {members[0]['id']}` sends it again" if state in ("rejected", "held") else ""
        if state == "waiting" and held:
            act = f"; nothing leaves while {held}"
        elif state == "waiting" and error:
            tries = max(one["attempts"] for one in members)
            act = f"; it was tried {_times(tries)}, and is again by itself, for 14 days"
        elif state in ("sent", "confirmed") and job["replaced_by"]:
            act = f"; those of {job['replaced_by']} take their place"
        elif state in ("sent", "confirmed") and job["state"] == "refused":
            act = ": there it says that AI did not run"
        yield f"{subject} ({ids}) {words}{proved}{wrong}{act}."
    for destination in dict.fromkeys(one["destination"] for one in deliveries):
        yield from _stuck([one for one in deliveries if one["destination"] == destination])
    if job["state"] == "done" and not deliveries:
        yield "Nothing was sent."


def _stuck(deliveries: Sequence[type_json]) -> Iterable[str]:
    """What waits for a SEG at the same destination that will not come by itself."""
    stopped = [one["id"] for one in deliveries if one["kind"] == "SEG" and one["state"] in ("rejected", "held")]
    waiting = [one["id"] for one in deliveries if one["kind"] != "SEG" and one["state"] == "waiting"]
    if stopped and waiting:
        verb = "waits" if len(waiting) == 1 else "wait"
        yield (
            f"{_list(waiting)} {verb} for {_list(stopped)} and for an operator: `dicomnode retry {stopped[0]}` once the cause "
            f"is gone, or `dicomnode cancel {stopped[0]}`, which cancels what waits for it too."
        )


def _list(words: Iterable[str]) -> str:
    items = list(words)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def _kinds(kinds: Iterable[str]) -> str:
    """ "SEG, SR and 20 SC": each kind once, in the order in which they were sent."""
    return _list(kind if number == 1 else f"{number} {kind}" for kind, number in Counter(kinds).items())


def _keys(keys: Sequence[str]) -> str:
    """Keys as they are; of more than four that follow each other the first and the last ("D1 to D22")."""
    numbers = [int(key[1:]) for key in keys]
    if len(keys) > 4 and numbers == list(range(numbers[0], numbers[0] + len(keys))):
        return f"{keys[0]} to {keys[-1]}"
    return _list(keys)


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def _time(text: str | None) -> str:
    return f"{datetime.fromisoformat(text):%H:%M:%S} UTC" if text else "an unknown time"


def _between(first: str, last: str) -> str:
    start, end = datetime.fromisoformat(first), datetime.fromisoformat(last)
    if (end - start).total_seconds() < 1:
        return f"on {start:%Y-%m-%d} at {start:%H:%M:%S} UTC"
    if start.date() == end.date():
        return f"on {start:%Y-%m-%d} between {start:%H:%M:%S} and {end:%H:%M:%S} UTC"
    return f"between {start:%Y-%m-%d %H:%M:%S} and {end:%Y-%m-%d %H:%M:%S} UTC"
