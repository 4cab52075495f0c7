"""The catalogue: what imaging makes of every real series and object, number by number.

Shapes and spacings are (z, y, x); points are LPS (x, y, z) in mm; values are in the volume's unit.
"""

from dataclasses import dataclass

from dicomnode.domain.imaging import RefusalCode, SpacingOrigin

type_vector = tuple[float, float, float]


@dataclass(frozen=True)
class ExpectedVolume:
    """`directions`: of the z, y and x axis of the array."""

    path: str
    shape: tuple[int, int, int]
    spacing_mm: type_vector
    first_voxel_mm: type_vector
    unit: str
    spots: dict[tuple[int, int, int], float]
    directions: tuple[type_vector, type_vector, type_vector] = ((0, 0, 1), (0, 1, 0), (1, 0, 0))


@dataclass(frozen=True)
class ExpectedImage:
    """A radiograph; high = bright."""

    path: str
    shape: tuple[int, int]
    spacing_mm: tuple[float, float] | None
    origin: SpacingOrigin
    spots: dict[tuple[int, int], float]


VOLUMES = [
    ExpectedVolume("ct_abdomen_crlm1004", (10, 512, 512), (5, 0.796875, 0.796875), (-198.2, -204, -345), "[hnsf'U]",
                   {(5, 256, 256): 99, (2, 135, 261): -93}),
    ExpectedVolume("ct_chest_cmbcrc_01068", (100, 512, 512), (2.5, 0.898438, 0.898438), (-228.8, -220, -236.5), "[hnsf'U]",
                   {(50, 256, 256): -291, (25, 135, 261): -33, (0, 0, 0): -3024}),
    ExpectedVolume("ct_chest_lidc_0001", (60, 512, 512), (2.5, 0.703125, 0.703125), (-166, -171.7, -185), "[hnsf'U]",
                   {(30, 256, 256): 29, (15, 135, 261): 228}),
    ExpectedVolume("ct_chest_lungpetctdx_a0002", (30, 512, 512), (8, 0.646484, 0.646484), (-173.17676, -294.17676, 80),
                   "[hnsf'U]",
                   {(15, 256, 256): 31, (7, 135, 261): 6}),
    ExpectedVolume("ct_liver_3slice_with_seg", (3, 512, 512), (1, 0.810547, 0.810547), (-235.2, -226.8, -128.69), "[hnsf'U]",
                   {(1, 256, 256): -92}),
    ExpectedVolume("mr_abdomen_haste_cor", (12, 256, 256), (8.75, 1.5625, 1.5625), (-191.72, -100.7352, 186.8467), "1",
                   {(6, 128, 128): 180, (3, 71, 133): 230},
                   ((0.005236, 0.999986, 0), (0, 0, -1), (0.999986, -0.005236, 0))),
    ExpectedVolume("mr_prostate_adc_ax", (10, 256, 256), (3, 0.7031, 0.7031), (-90.0581, -110.548, -32.1577), "1",
                   {(5, 128, 128): 2409, (2, 71, 133): 940},
                   ((-0.002984, -0.173879, 0.984762), (-0.005402, 0.984761, 0.173862), (0.999981, 0.004792, 0.003876))),
    ExpectedVolume("pt_sts002_with_rtstruct", (48, 27, 30), (3.27, 5.46875, 5.46875), (2.73438, 57.42188, -629.02), "g/ml",
                   {(24, 13, 15): 1.10356, (12, 13, 20): 0.47952}),
    ExpectedVolume("objects/ct_enhanced_2frames.dcm", (2, 512, 512), (10, 0.388672, 0.388672), (99.5, -301.5, -149), "1",
                         {}, ((0, 0, -1), (0, 1, 0), (-1, 0, 0))),
    ExpectedVolume("objects/mr_enhanced_siemens_6frames.dcm", (6, 64, 64), (2.4, 3.375, 3.375), (-109.79, -58.4773, -5.40356),
                         "1", {}),
    ExpectedVolume("syntaxes/1.2.4.51_2frames_fragmented_no_bot.dcm", (2, 512, 512), (10, 0.388672, 0.388672),
                         (99.5, -301.5, -149), "1", {}, ((0, 0, -1), (0, 1, 0), (-1, 0, 0))),
]  # fmt: skip

REFUSED = [
    ("ct_chest_gap_covid3", RefusalCode.GAP, "1 slice missing at -820.20 mm"),
    ("ct_chest_rider_0109", RefusalCode.MIXED_GEOMETRY, "three scan ranges in one series"),
    ("ct_duplicate_positions_lymphoma", RefusalCode.MIXED_GEOMETRY, "12.5, 32.5, 230 mm"),
    ("ct_head_ge_tilt", RefusalCode.TILT, "18.5 degrees"),
    ("mr_brain_dualecho", RefusalCode.TEMPORAL, "4 complete stacks of 7 positions in one series, told apart by EchoTime and I"),
    ("mr_breast_dce_sag_4d", RefusalCode.TEMPORAL, "3 complete stacks of 7 positions"),
    ("objects/ct_chest_coronal_reformat_single.dcm", RefusalCode.TOO_FEW, "1 image"),
    ("objects/ct_chest_localizer_jpegll.dcm", RefusalCode.LOCALIZER, "localizers"),
    ("objects/dx_chest_modality_says_ct.dcm", RefusalCode.MIXED_GEOMETRY, "Modality says CT"),
    ("objects/mr_enhanced_10frames.dcm", RefusalCode.MIXED_GEOMETRY, "all 10 frames"),
    ("objects/nm_heart_13frames.dcm", RefusalCode.UNSUPPORTED_CLASS, "Nuclear Medicine"),
    ("objects/parametric_map_float.dcm", RefusalCode.UNSUPPORTED_CLASS, "Parametric Map"),
    ("objects/pt_slice_jpegll.dcm", RefusalCode.TOO_FEW, "1 image"),
    ("objects/rtdose_15frames.dcm", RefusalCode.UNSUPPORTED_CLASS, "RT Dose"),
    ("objects/sc_palette.dcm", RefusalCode.UNSUPPORTED_CLASS, "Modality OT"),
    ("objects/sc_rgb_3x3.dcm", RefusalCode.UNSUPPORTED_CLASS, "Modality OT"),
    ("objects/sc_rgb_jpeg.dcm", RefusalCode.UNSUPPORTED_CLASS, "Modality OT"),
    ("objects/seg_fractional.dcm", RefusalCode.UNSUPPORTED_CLASS, "Segmentation"),
    ("objects/seg_labelmap.dcm", RefusalCode.UNSUPPORTED_CLASS, "Label Map Segmentation"),
    ("objects/sm_wsi_tiled.dcm", RefusalCode.UNSUPPORTED_CLASS, "Microscopy"),
    ("objects/us_multiframe_palette_jpegls.dcm", RefusalCode.UNSUPPORTED_CLASS, "Ultrasound"),
    ("objects/us_multiframe_ybr422_jpeg.dcm", RefusalCode.UNSUPPORTED_CLASS, "Ultrasound"),
    ("objects/xa_jpegext12.dcm", RefusalCode.UNSUPPORTED_CLASS, "Modality XA"),
    ("syntaxes/1.2.1.99_ot_deflated.dcm", RefusalCode.UNSUPPORTED_CLASS, "Modality OT"),
    ("syntaxes/1.2.2_us_bigendian.dcm", RefusalCode.UNSUPPORTED_CLASS, "Ultrasound"),
    ("syntaxes/1.2.4.70_sc_rgb.dcm", RefusalCode.UNSUPPORTED_CLASS, "Modality OT"),
    ("syntaxes/1.2.4.80_emri_10frames.dcm", RefusalCode.MIXED_GEOMETRY, "all 10 frames"),
    ("syntaxes/1.2.5_sc_rgb16_2frames.dcm", RefusalCode.UNSUPPORTED_CLASS, "Modality OT"),
    ("syntaxes/1.2.8.1_seg_deflated_frame.dcm", RefusalCode.UNSUPPORTED_CLASS, "Segmentation"),
]  # fmt: skip

IMAGES = [
    ExpectedImage("objects/cr_chest_mono1_440.dcm", (440, 440), None, SpacingOrigin.NONE, {(220, 220): 738, (132, 264): 314}),
    ExpectedImage("objects/cr_chest_pa_rsna.dcm", (1024, 1024), (0.168, 0.168), SpacingOrigin.CALIBRATED,
                        {(512, 512): 208, (307, 614): 169}),
    # The same pixels and UID, labelled MONOCHROME1: a header is taken at its word.
    ExpectedImage("objects/cr_chest_pa_rsna_labelled_mono1.dcm", (1024, 1024), (0.168, 0.168), SpacingOrigin.CALIBRATED,
                        {(512, 512): 47, (307, 614): 86}),
    ExpectedImage("objects/cr_extremity_mono1_j2k.dcm", (1760, 1760), None, SpacingOrigin.NONE,
                        {(880, 880): 717, (528, 1056): 472}),
    ExpectedImage("objects/dx_chest_pa_nih_effusion.dcm", (1024, 1024), None, SpacingOrigin.NONE,
                        {(512, 512): 177, (307, 614): 61}),
    ExpectedImage("objects/dx_thorax_mono1_dog.dcm", (169, 211), (1.2, 1.2012), SpacingOrigin.DETECTOR,
                        {(84, 105): 80, (50, 126): 162}),
    ExpectedImage("objects/mg_testpattern.dcm", (512, 512), (0.25, 0.25), SpacingOrigin.CALIBRATED, {(256, 256): 0}),
]  # fmt: skip

# One slice each, in every transfer syntax: too few for a volume, but their pixels decode. Stored values at two places.
SLICES = {
    **{f"syntaxes/{syntax}_ct_neck.dcm": {(256, 256): 1091, (153, 307): 945}
       for syntax in ("1.2.1.99", "1.2.4.57", "1.2.4.70", "1.2.4.80", "1.2.4.90", "1.2.5")},
    **{f"syntaxes/{syntax}_ct_neck.dcm": {(256, 256): 2056, (153, 307): 1985}
       for syntax in ("1.2.4.51", "1.2.4.53", "1.2.4.55")},
    **{f"syntaxes/{name}.dcm": {(32, 32): 182, (19, 38): 282}
       for name in ("1.2_mr_small_implicit", "1.2.1_mr_small", "1.2.2_mr_small_bigendian", "1.2.4.80_mr_small",
                          "1.2.4.90_mr_small", "1.2.5_mr_small_rle")},
    "syntaxes/1.2.4.50_ct_neck.dcm": {(256, 256): 128, (153, 307): 123},
    "syntaxes/1.2.4.81_ct_neck.dcm": {(256, 256): 1091, (153, 307): 946},
    "syntaxes/1.2.4.91_ct_neck.dcm": {(256, 256): 1090, (153, 307): 943},
    "syntaxes/1.2.1_ct_small.dcm": {(64, 64): 1928, (38, 76): 1335},
}  # fmt: skip

# Files that are no series of images at all, and why.
NOT_IMAGES = {
    "objects/DICOMDIR": "a DICOMDIR",
    "objects/color_palette.dcm": "Color Palette",
    "objects/doc_encapsulated_pdf.dcm": "Encapsulated PDF",
    "objects/ecg_12lead_waveform.dcm": "12-lead ECG",
    "objects/hanging_protocol.dcm": "Hanging Protocol",
    "objects/m3d_encapsulated_stl.dcm": "Encapsulated STL",
    "objects/pr_gsps_luts.dcm": "Presentation State",
    "objects/pr_gsps_overlay.dcm": "Presentation State",
    "objects/rtplan.dcm": "RT Plan",
    "objects/rtstruct_nometa.dcm": "not a DICOM file",
    "objects/sr_basic_text.dcm": "Basic Text SR",
    "objects/sr_comprehensive3d_tid1500.dcm": "Comprehensive 3D SR",
    "objects/sr_tid1500_pet.dcm": "Comprehensive SR",
    # Pixels alone, without patient, study or series; read through the plug-in in test_decoding.
    "syntaxes/1.2.4.201_htj2k_lossless_rgb.dcm": "not a complete DICOM object",
    "syntaxes/1.2.4.203_htj2k_rgb.dcm": "not a complete DICOM object",
    "syntaxes/1.2.4.81_16bit.dcm": "not a complete DICOM object",
}
