"""dicomnode: a PACS-integrated DICOM AI node."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("dicomnode-ai")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

SOFTWARE_NAME = "dicomnode"
