"""The Debian packages that the tests need beside Python's: real peers, validators and fault tools.

`make test` runs this first. It is quick when all is there. Where something is missing it installs it on a build machine
(CI=true, root) and otherwise stops with the line to type: nobody's own machine is changed unasked.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

POLICY = Path("/usr/sbin/policy-rc.d")


@dataclass(frozen=True)
class SystemPackage:
    """A Debian package, a tool or a file (a pattern) that shows that it is there, and what the tests want of it."""

    name: str
    shown_by: str
    purpose: str

    @property
    def present(self) -> bool:
        """Whether the tests would find what they want: the tool itself, whoever installed it."""
        if "/" in self.shown_by:
            return any(Path("/").glob(self.shown_by.removeprefix("/")))
        return shutil.which(self.shown_by, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is not None


PACKAGES = (
    SystemPackage("dcmtk", "dcmsend", "a modality that sends, a PACS that only stores"),
    SystemPackage("orthanc", "Orthanc", "a PACS"),
    SystemPackage("dicom3tools", "dciodvfy", "the validator of DICOM objects"),
    SystemPackage("postgresql", "/usr/lib/postgresql/*/bin/postgres", "the database of several machines"),
    SystemPackage("pixelmed-apps", "/usr/share/java/pixelmed.jar", "the validator of structured reports' templates"),
    SystemPackage("default-jre-headless", "java", "what runs that validator"),
    SystemPackage("orthanc-dicomweb", "/usr/share/orthanc/plugins/libOrthancDicomWeb.so", "the PACS's side of a web viewer"),
    SystemPackage("chromium", "chromium", "the browser that shows results in a real viewer"),
    SystemPackage("npm", "npm", "fetching that viewer, OHIF, as it is published"),
    SystemPackage("poppler-utils", "pdftoppm", "a second reader of PDF pages"),
    SystemPackage(
        "fonts-noto-cjk", "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc", "names in any script on captures"
    ),
    SystemPackage("strace", "strace", "failing system calls"),
    SystemPackage("gcc", "gcc", "shims that keep Orthanc on the loopback and make disks fail"),
    SystemPackage("libc6-dev", "/usr/include/stdio.h", "shims that keep Orthanc on the loopback and make disks fail"),
    SystemPackage("e2fsprogs", "mkfs.ext4", "disks that are full or lose their power"),
    SystemPackage("xfsprogs", "mkfs.xfs", "the same on another file system"),
    SystemPackage("systemd", "systemd-analyze", "the check of the service unit"),
)


def main() -> int:
    """0 when everything is there (now); 1 when something is missing and was not installed."""
    missing = [package for package in PACKAGES if not package.present]
    if not missing:
        return 0
    names = [package.name for package in missing]
    line = f"apt-get install --no-install-recommends {' '.join(names)}"
    for package in missing:
        print(f"missing: {package.name} ({package.purpose})", file=sys.stderr)
    if os.environ.get("CI") != "true" or os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"error: the tests need {len(names)} more Debian packages — {line}", file=sys.stderr)
        return 1
    install(names)
    still_missing = [package.name for package in missing if not package.present]
    if still_missing:
        print(f"error: not there after installation: {' '.join(still_missing)} — {line}", file=sys.stderr)
        return 1
    return 0


def install(names: list[str]) -> None:
    """Installs without a question and without starting a service: Debian's Orthanc would listen from then on."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    ours = not POLICY.exists()
    if ours:
        POLICY.write_text("#!/bin/sh\nexit 101\n")  # "action forbidden by policy": no service is started while packages unpack
        POLICY.chmod(0o755)
    try:
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
        subprocess.run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", *names], check=True, env=environment)
    finally:
        if ours:
            POLICY.unlink()
    if "orthanc" in names:  # nor at the next boot
        subprocess.run(["update-rc.d", "orthanc", "disable"], check=False, capture_output=True)
        subprocess.run(["systemctl", "disable", "orthanc.service"], check=False, capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
