"""How results say who made them, and how receiving knows them again (DESIGN section 3, "ours")."""

MANUFACTURER = "dicomnode project"
MODEL_NAME = "dicomnode"
# Text of Contributing Equipment Sequence (0018,A001) > Contribution Description in every result.
CONTRIBUTION_DESCRIPTION = "AI analysis by dicomnode"

# Classes in which results are written; only these are examined for our Contributing Equipment.
DERIVED_SOP_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
        "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
        "1.2.840.10008.5.1.4.1.1.88.22",  # Enhanced SR
        "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
        "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
        "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture
        "1.2.840.10008.5.1.4.1.1.7.4",  # Multi-frame True Color Secondary Capture
        "1.2.840.10008.5.1.4.1.1.11.1",  # Grayscale Softcopy Presentation State
        "1.2.840.10008.5.1.4.1.1.88.59",  # Key Object Selection
        "1.2.840.10008.5.1.4.1.1.30",  # Parametric Map
        "1.2.840.10008.5.1.4.1.1.104.1",  # Encapsulated PDF
    }
)
