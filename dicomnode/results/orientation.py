"""How a slice lies in the patient."""

from pydicom.dataset import Dataset

from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.results.slices import sides_of


def patient_orientation(image: Volume | Image2D, header: Dataset) -> list[str]:
    """Patient Orientation (0020,0020) of a slice as stored: directions of rows and of columns."""
    if isinstance(image, Volume):
        turned = image.affine[:, [0, 2, 1, 3]]  # columns in the place of rows
        return [sides_of(image.affine)[1], sides_of(turned)[1]]
    return [str(one) for one in header.get("PatientOrientation") or []]
