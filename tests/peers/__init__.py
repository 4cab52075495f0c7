"""Real peers for tests: Orthanc, DCMTK's tools, and a whole node of ours as a subprocess. Loopback only, free ports."""
