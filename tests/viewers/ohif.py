"""What a person does in OHIF: opens a study, opens a series, reads what is there."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.peers.waiting import wait_until
from tests.viewers.chromium import Chromium, PageError

BROKEN = ("Error Boundary", "Unable to generate tool state", "Something went wrong", "not yet supported")

COLOR_TOLERANCE = 32
LONGEST_S = 180.0  # a picture takes seconds; on a machine with other work it may take minutes
# So long a person waits before clicking again: OHIF draws its list anew while it loads, and a click on it may then be lost.
PATIENCE_S = 25.0


@dataclass
class Ohif:
    """OHIF at `address` in a browser."""

    browser: Chromium
    address: str
    study_instance_uid: str
    folder: Path
    _opened: str = ""  # what the series says that was double-clicked last, until anything else was done

    def open_study(self, *, series: int) -> None:
        """Opens the study and waits for the thumbnails of so many series and for the first picture."""
        self.browser.before_every_page("localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']))")
        self.browser.open(f"{self.address}/viewer?StudyInstanceUIDs={self.study_instance_uid}")
        self.browser.wait_for(
            f"document.querySelectorAll('[data-cy^=\"study-browser-thumbnail\"]').length >= {series}",
            timeout_s=LONGEST_S,
            what=f"{series} series in the study browser",
        )
        self.wait_for_picture()

    def wait_for_picture(self) -> None:
        """Until a viewport shows something that is not one colour, twice the same."""
        self.browser.wait_for("document.querySelector('canvas.cornerstone-canvas') !== null", timeout_s=LONGEST_S)
        self.browser.wait_for(_PICTURE_STANDS, timeout_s=LONGEST_S, what="a picture in the viewport")
        self.check()

    def open_series(self, text: str) -> None:
        """Double-clicks the series whose thumbnail says `text`; once more where what is waited for next does not come."""
        self._opened = text
        place = self.browser.wait_for(f"""(() => {{
            const all = [...document.querySelectorAll('[data-cy^="study-browser-thumbnail"]')];
            const one = all.find(it => it.innerText.includes({json.dumps(text)}));
            if (!one) return null;
            one.scrollIntoView({{block: 'center'}});
            const box = one.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()""", timeout_s=LONGEST_S, what=f"the series {text!r}; there are {self.series()}")  # fmt: skip
        self.browser.click_at(place[0], place[1], times=2)

    def series(self) -> list[str]:
        """What the thumbnails of the study browser say."""
        script = "[...document.querySelectorAll('[data-cy^=\"study-browser-thumbnail\"]')].map(it => it.innerText)"
        return [" | ".join(one.split("\n")) for one in self.browser.evaluate(script)]

    def agree(self, timeout_s: float = LONGEST_S) -> None:
        """Says yes to "track these measurements" or "open this segmentation"."""
        question = "document.querySelector('[data-cy=\"yes-hydrate-btn\"]') !== null"
        self._wait_for(lambda: self._holds(question), timeout_s, "the question")
        self._opened = ""
        self.browser.click('[data-cy="yes-hydrate-btn"]')

    def text(self) -> str:
        """All text that the page shows."""
        return str(self.browser.evaluate("document.body.innerText"))

    def wait_for_text(self, text: str, timeout_s: float = LONGEST_S) -> None:
        """Until the page shows this text."""
        self.browser.wait_for(f"document.body.innerText.includes({json.dumps(text)})", timeout_s=timeout_s, what=repr(text))
        self.check()

    def labels(self) -> str:
        """What is written beside the outlines that the viewport draws."""
        script = "[...document.querySelectorAll('.viewport-element svg text')].map(one => one.textContent).join(' | ')"
        return str(self.browser.evaluate(script))

    def wait_for_label(self, text: str, timeout_s: float = LONGEST_S) -> None:
        """Until one of the labels holds this text."""
        self._wait_for(lambda: text in self.labels(), timeout_s, f"the label {text!r}")

    def place_of_label(self, text: str) -> float:
        """Where a label begins, as a share of the viewport's width from its left edge."""
        return float(
            self.browser.evaluate(f"""(() => {{
            const box = document.querySelector('[data-cy="viewport-pane"]').getBoundingClientRect();
            const all = [...document.querySelectorAll('.viewport-element svg text')];
            const one = all.find(it => it.textContent.includes({json.dumps(text)}));
            return (one.getBoundingClientRect().x - box.x) / box.width;
        }})()""")
        )

    def open_panel(self, name: str) -> None:
        """Opens a panel on the right: panelSegmentation, trackedMeasurements."""
        self.browser.click(f'[data-cy="{name}-btn"]')

    def viewport(self) -> NDArray[np.uint8]:
        """What the viewport shows, labels and overlays included: (y, x, 3) RGB."""
        box = self.browser.evaluate("""(() => {
            const box = document.querySelector('[data-cy="viewport-pane"]').getBoundingClientRect();
            return [box.x, box.y, box.width, box.height];
        })()""")
        return np.asarray(Image.open(self.browser.screenshot(self.folder / "viewport.png", clip=box)).convert("RGB"))

    def wait_for_color(self, color: tuple[int, int, int], *, pixels: int, timeout_s: float = LONGEST_S) -> None:
        """Until the viewport shows so many pixels of this colour (32 levels more or less), its frame and its icons left out."""
        self._wait_for(lambda: self._count(color) >= pixels, timeout_s, f"{pixels} pixels of {color}")

    def _holds(self, script: str) -> bool:
        """Whether an expression is true in the page, which may be between two states."""
        with suppress(PageError):
            return bool(self.browser.evaluate(script))
        return False

    def _wait_for(self, seen: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Until it is seen; what was opened last is opened again meanwhile. Raises TimeoutError or PageError."""
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > PATIENCE_S and self._opened:
            with suppress(TimeoutError):
                wait_until(seen, timeout_s=PATIENCE_S, every_s=0.3)
                break
            self.open_series(self._opened)
        else:
            wait_until(seen, timeout_s=left, every_s=0.3, what=what)
        self.check()

    def _count(self, color: tuple[int, int, int]) -> int:
        """OHIF frames the active viewport in a light blue that segments may have too."""
        shown = self.viewport().astype(int)
        inside = shown[shown.shape[0] // 10 : -(shown.shape[0] // 20), shown.shape[1] // 40 : -(shown.shape[1] // 20)]
        return int((np.abs(inside - color).max(axis=2) <= COLOR_TOLERANCE).sum())

    def open_segment(self, label: str) -> None:
        """Clicks a segment in the panel: OHIF goes to the slice in its middle."""
        self.browser.wait_for(f"""(() => {{
            const one = [...document.querySelectorAll('span, div')].find(
                it => it.children.length === 0 && it.textContent.trim() === {json.dumps(label)});
            if (!one) return false;
            one.click();
            return true;
        }})()""", timeout_s=LONGEST_S, what=f"the segment {label!r}")  # fmt: skip

    def check(self) -> None:
        """Raises PageError where the viewer broke."""
        broken = [line for line in [*self.browser.said, self.text()] if any(word in line for word in BROKEN)]
        if broken:
            raise PageError(f"OHIF broke: {broken[0][:800]}")

    def show(self, path: Path) -> Path:
        """A screenshot of the whole page."""
        return self.browser.screenshot(path)


_PICTURE_STANDS = """(async () => {
  const glance = () => [...document.querySelectorAll('canvas.cornerstone-canvas')].map(canvas => {
    const small = document.createElement('canvas');
    small.width = small.height = 64;
    const pen = small.getContext('2d');
    pen.drawImage(canvas, 0, 0, 64, 64);
    return pen.getImageData(0, 0, 64, 64).data.join();
  });
  const first = glance();
  await new Promise(done => setTimeout(done, 400));
  const second = glance();
  const varied = text => new Set(text.split(',')).size > 8;
  return first.length > 0 && first.every((one, place) => one === second[place] && varied(one));
})()"""


def dicomweb_settings() -> dict[str, object]:
    """Orthanc's settings with its DICOMweb plug-in. Raises FileNotFoundError with the remedy."""
    plugin = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
    if not plugin.exists():
        raise FileNotFoundError("Orthanc's DICOMweb is missing — apt-get install --no-install-recommends orthanc-dicomweb")
    return {
        "Plugins": [str(plugin)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": True, "WadoRoot": "/wado"},
    }
