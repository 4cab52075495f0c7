"""A report in sentences: title (18748-4, LN), sections of text (PS3.16 TID 2000), no measurement group.

This form shows in OHIF 3.13, where a TID 1500 report without a measurement group blanks the page.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import highdicom as hd
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as DicomCode

from dicomnode.results.context import Context
from dicomnode.results.equipment import facts_of
from dicomnode.results.sr_document import make_document, observer, procedure_reported

TITLE = DicomCode("18748-4", "LN", "Diagnostic Imaging Report")
ENGLISH = DicomCode("en-US", "RFC5646", "English (United States)")
# Section → (concept of the section, concept of its sentences), CID 7001 and 7002.
SECTIONS = {
    "Findings": (codes.DCM.Findings, codes.DCM.Finding),
    "Recommendations": (codes.DCM.Recommendations, codes.DCM.Recommendation),
    "Conclusions": (codes.DCM.Conclusions, codes.DCM.Conclusion),
}


def text_report(context: Context, sections: Mapping[str, Sequence[str]], what: str = "SR") -> Any:
    """A text report; the intended use and the model card's facts close it as its conclusion."""
    root = hd.sr.ContainerContentItem(name=TITLE, template_id="2000")
    content = hd.sr.ContentSequence()
    content.extend(hd.sr.LanguageOfContentItemAndDescendants(ENGLISH))
    content.extend(observer(context))
    content.append(
        hd.sr.CodeContentItem(codes.DCM.ProcedureReported, procedure_reported(context), relationship_type="HAS CONCEPT MOD")
    )
    for title, sentences in {**sections, "Conclusions": [f"{context.notice}.", *facts_of(context.model)]}.items():
        section, sentence = SECTIONS[title]
        container = hd.sr.ContainerContentItem(name=section, relationship_type="CONTAINS")
        container.ContentSequence = hd.sr.ContentSequence(
            [hd.sr.TextContentItem(sentence, text, relationship_type="CONTAINS") for text in sentences]
        )
        content.append(container)
    root.ContentSequence = content
    return make_document(context, root, list(context.sources.headers), what)
