"""Pictures of findings: which slices to show, and PNG files for people."""

from pathlib import Path

import numpy as np
from PIL import Image

from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.results.equipment import notice_for
from dicomnode.results.outlines import HOT, key_slice, label_map_of
from dicomnode.results.pages import PageText, summary_page
from dicomnode.results.slices import Look, slice_picture, stack_of

MOST_SLICES = 20
PNG_SIDE = 1024


def slices_with_findings(findings: Findings, slices: int) -> list[int]:
    """Slice indices that show a lesion, a box or a hot place, ascending."""
    shows = np.zeros(slices, bool)
    for lesion in findings.lesions:
        found = label_map_of(findings, lesion)
        if found is None:
            shows[key_slice(findings, lesion)] = True
        else:
            shows |= [bool((one == found[1]).any()) for one in found[0].labels]  # a mask of the whole volume is never held
    for box in findings.boxes:
        shows[box.start[0] : box.stop[0]] = True
    for heat_map in findings.heatmaps:
        shows |= (heat_map.values >= HOT).any(axis=(1, 2))
    return [int(index) for index in np.flatnonzero(shows)]


def slices_to_show(findings: Findings, slices: int, most: int = MOST_SLICES) -> list[int]:
    """All slices with findings, or `most` of them: every lesion's key slice first, the rest spread evenly. Ascending."""
    all_of_them = slices_with_findings(findings, slices)
    if len(all_of_them) <= most:
        return all_of_them
    ranked = sorted(findings.lesions, key=lambda one: -one.probability)
    chosen = list(dict.fromkeys(key_slice(findings, lesion) for lesion in ranked))[:most]
    rest = [index for index in all_of_them if index not in chosen]
    spread = np.linspace(0, len(rest) - 1, most - len(chosen)).round().astype(int)
    return sorted({*chosen, *(rest[int(place)] for place in spread)})


def picture(volume: Volume | Image2D, findings: Findings, slice_index: int, *, shortest_side: int = PNG_SIDE) -> Image.Image:
    """RGB picture of one slice with its findings, the model's name and its intended use."""
    slices = len(stack_of(volume))
    return slice_picture(volume, findings, slice_index, _look(findings, f"slice {slice_index + 1} of {slices}", shortest_side))


def _look(findings: Findings, place: str, shortest_side: int) -> Look:
    model = findings.model
    return Look(
        notice=notice_for(model.demonstration),
        caption=f"AI {model.name} {model.version}   {place}",
        shortest_side=shortest_side,
    )


def save_pictures(volume: Volume | Image2D, findings: Findings, folder: Path) -> list[Path]:
    """Writes summary.png and slice-NNN.png (1-based, from the first slice of the volume); gives the paths, summary first."""
    folder.mkdir(parents=True, exist_ok=True)
    slices = len(stack_of(volume))
    shown = slices_to_show(findings, slices) or [slices // 2]
    model = findings.model
    text = PageText(
        title=f"AI result: {model.name} {model.version}",
        notice=notice_for(model.demonstration),
        image_numbers=range(1, slices + 1),
        called="slice",
    )
    paths = [folder / "summary.png"]
    summary_page(volume, findings, text).save(paths[0])
    for index in shown:
        path = folder / f"slice-{index + 1:03d}.png"
        picture(volume, findings, index).save(path)
        paths.append(path)
    return paths
