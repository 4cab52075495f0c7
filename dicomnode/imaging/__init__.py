"""Series in; `Volume`, `Image2D` or `Refusal` out.

Enters: a `SeriesRef` (from the registry, or from `scan` over files and folders). Leaves: a geometrically right volume with its
affine, a radiograph with its photometric meaning applied, or a `Refusal` that names the instances and says what to do.
Promises: nothing is interpolated, straightened or guessed; split off are only localizers and foreign sizes or orientations, and
a warning says so; sizes are checked before anything is allocated; bad bytes end in a `Refusal`, never in an exception. Codecs
run in a process of their own: what crashes, hangs or gorges itself there costs one series.
"""

from dicomnode.imaging.codecs import install_decoders
from dicomnode.imaging.loading import load
from dicomnode.imaging.scanning import Scan, scan

__all__ = ["Scan", "install_decoders", "load", "scan"]
