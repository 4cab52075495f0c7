"""A real viewer on a real PACS: OHIF in headless Chromium over Orthanc's DICOMweb. What a radiologist would see."""
