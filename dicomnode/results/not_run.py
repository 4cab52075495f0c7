""" "AI not run": a short report and one page that say why, so that absence is never read as negative."""

from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from dicomnode.domain.imaging import Refusal
from dicomnode.results.context import Context
from dicomnode.results.pages import not_run_page
from dicomnode.results.sc import make_capture
from dicomnode.results.sr_text import text_report

WHAT = "NOT RUN"
NOT_NEGATIVE = "This is not a negative result: the images were not analysed by AI."
MOST_NAMED = 16


def build_not_run_report(context: Context, refusal: Refusal) -> Any:
    """A text report: what did not run, why, what can be done."""
    name = f"{context.model.name} {context.model.version}"
    findings = [f"AI {name} was not run. {NOT_NEGATIVE}", f"Reason ({refusal.code.value}): {_sentence(refusal.message)}"]
    classes = _known_classes_only(context)
    try:
        report = text_report(context, {"Findings": findings, "Recommendations": [_sentence(refusal.remedy)]}, WHAT)
    finally:
        _put_back(context, classes)
    _name_true_classes(report, classes)
    return report


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _known_classes_only(context: Context) -> dict[str, str]:
    """highdicom looks modules up by SOP Class and knows no private ones: all pass as CT while the report is built."""
    classes = {}
    for header in context.sources.headers:
        classes[str(header.SOPInstanceUID)] = str(header.SOPClassUID)
        header.SOPClassUID = CTImageStorage
    return classes


def _put_back(context: Context, classes: dict[str, str]) -> None:
    for header in context.sources.headers:
        header.SOPClassUID = classes[str(header.SOPInstanceUID)]


def _name_true_classes(report: Dataset, classes: dict[str, str]) -> None:
    def mend(item: Dataset, element: Any) -> None:
        if element.keyword == "ReferencedSOPInstanceUID" and element.value in classes:
            item.ReferencedSOPClassUID = classes[element.value]

    report.walk(mend)


def build_not_run_capture(context: Context, refusal: Refusal) -> Any:
    """One page. It names the instances that the refusal names, as far as they are images of this series."""
    title = f"{context.model.name} {context.model.version}"
    picture = not_run_page(
        title, f"{_sentence(refusal.message)} ({refusal.code.value})", _sentence(refusal.remedy), context.notice
    )
    known = context.sources.headers_by_uid
    named = [known[uid] for uid in refusal.instances if uid in known] or list(context.sources.headers[:1])
    images = [header for header in named if "Rows" in header][:MOST_NAMED]
    capture = make_capture(context, picture, 1, images)
    capture.SeriesDescription = context.description(WHAT)
    capture.DerivationDescription = "Notice that AI did not analyse the source images"
    return capture
