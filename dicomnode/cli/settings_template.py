"""The settings file that `dicomnode init` writes: every key once, with its default and a sentence."""

import json
from pathlib import Path

_TEXT = """\
# Settings of one dicomnode. Variables win: DICOMNODE_NODE__AE_TITLE=… ; unknown keys stop the start.
# Relative paths count from this file's folder. After a change: dicomnode check, then SIGHUP or a restart.

[node]
ae_title = "DICOMNODE"             # who we are: 1 to 16 characters
data_dir = DATA_DIR
# name = "worker-1"                # of this machine among those that share a database; default: its host name
# timezone = "Europe/Berlin"       # of dates and times in results where the images name none; default: this machine's
# uid_root = "1.2.…"               # for UIDs of results instead of 2.25

[database]
# url = "sqlite:////var/lib/dicomnode/dicomnode.db"    # default: dicomnode.db in data_dir

[dicom]
host = "127.0.0.1"                 # 0.0.0.0 to be reached from other machines; only listed peers get in
port = 11112
# also_called = ["AI_CHEST"]       # further AE titles of ours, for routes that match CalledAETitle
# extra_sop_classes = ["1.2.…"]    # private storage classes; those of the standard are all taken
# transfer_syntaxes = ["ExplicitVRLittleEndian"]       # chosen first where a sender offers several; all others follow
# tls = { certificate = "node.pem", key = "node.key", ca = "peers.pem", require_client = true }    # docs/tls.md
# network_timeout_s = 60.0         # silence after which an association is given up
# max_associations = 25

[web]                              # the console is not built yet; its keys are kept
# host = "127.0.0.1"
# port = 8080

[pipelines]
folders = []                       # searched before those that `dicomnode pipelines add` brought and the shipped ones
# trusted = ["…"]                  # digests of bundles whose own code may run; dicomnode pipelines list shows digests

[work]
# device = "auto"                  # auto, cpu, cuda, cuda:1
# lease_s = 60.0                   # after this long without a sign of its worker a job is given to another
# job_timeout_s = 3600.0           # a job that takes longer hangs: its worker is ended
# memory_mb = 0                    # of the worker; 0: 80 % of what the machine or the service has, no limit on a GPU
# drain_s = 30.0                   # how long a running job may go on when the node stops

[storage]
# reserve_mb = 512                 # with less free than this nothing more is accepted
# order = "parallel"               # how an instance becomes durable; "serial" for file systems that need it, slower
# reserve_file_mb = 64             # a file that is given up on a full disk, so that the database can still write

[sweep]
# interval_s = 2.0                 # how often completeness is judged

[retention]                        # of what is done and sent; nothing unsent is ever purged; 0 days: for ever
# sources_days = 30                # images, after the last one of their study came
# results_days = 90                # our copies of results, after their job ended
# rows_days = 365                  # rows of purged images: so long the same image again makes no new work
# audit_days = 180                 # then audit rows move to data_dir/audit, a file a month
# free_percent = 10                # with less of the disk free the oldest goes before its time,
# at_least_hours = 24              # but nothing younger than this

[canary]                           # a phantom that the node sends to itself; its result must come out
# every_h = 0                      # hours between two; 0: never
# within_min = 30                  # minutes until it is an alarm
# pipeline = "chest_ct"
# send_to = []                     # destinations that get its results, besides the folder data_dir/canary
# certificate = "canary.pem"       # with `key`: what it shows where dicom.tls requires one; else the listener's own
# key = "canary.key"

[commitment]                       # storage commitment that is asked of us; modalities delete what was committed
# serve = false                    # for peers that may "commit"
# keep_days = 365.0                # how long what was committed is kept, whatever retention says

[alarms]                           # what waits for an administrator in `dicomnode status`
# queue_min = 30                   # the oldest job that may run waits for longer than so many minutes
# certificate_days = 30            # before the listener's certificate ends
# failed_days = 7                  # for so long a job that failed for good is an alarm

[archive]                          # what was received can be found and had back by peers that may "query" or "retrieve"
# max_matches = 10000              # of one C-FIND; then it ends with A700
# max_retrievals = 4               # C-MOVEs and C-GETs at once; more are answered A702

[logs]
# level = "info"                   # debug, info, warning, error
# format = "auto"                  # text on a terminal, else json

# Who may talk to us, and whom we may call.
# [[peers]]
# name = "pacs"
# ae_title = "ORTHANC"
# host = "127.0.0.1"
# port = 4242
# may = ["store", "query", "retrieve"]                 # what it may ask of us; "commit", "reject", "announce" (MPPS, IAN) too
# tls = true                       # we call it by TLS, with the certificates of dicom.tls

# In which form a destination gets results: a shipped profile with some things otherwise.
# [[profiles]]
# name = "old-pacs"
# like = "archive"                 # ohif, archive, sc-only, fhir
# kinds = ["SEG", "SR", "SC"]      # of those that the route asks for
# seg_form = "binary"              # binary, fractional, labelmap
# max_segments = 200               # of one segmentation object,
# max_frames = 5000                # and its frames;
# over_limit = "split"             # more: split (several objects), leave-out (none, and the report says so)
# keep_empty_frames = false
# without_frame_of_reference = "derivation"            # frames name their images; or derived, leave-out
# seg_on_projections = true        # false: radiographs get none (OHIF shows a black page), and the report says so
# sr_form = "clean"                # or ohif: outlines under every number, names of its drawing tools
# sr_class = "comprehensive-3d"    # or comprehensive
# library_images = 32              # the report lists all images of the series up to so many, else the key images
# sc_form = "single-frames"        # or multi-frame
# text_position = "bottom"         # or top, clear of the viewer's own bars
# character_set = "source"         # of patient and study text; or utf-8
# rejection_note = ""              # 113001, 113037, 113038 or 113039: withdraw what a newer version replaced (IOCM)
# rejection_within_h = 24          # older results only where an operator asked for the newer version
# fallbacks = { SR = "comprehensive" }                 # what goes where the class is refused; SEG = "binary", SC = …

# Where results go.
# [[destinations]]
# name = "pacs"
# kind = "dicom"                   # dicom (needs peer), stow and fhir (need url) or folder (needs path)
# peer = "pacs"
# path = "/srv/results"            # kind = "folder" only
# url = "https://pacs/dicom-web"   # kind = "stow" or "fhir" (the base address of an R4 server, profile = "fhir")
# profile = "ohif"                 # ohif, archive, sc-only, fhir, or one of [[profiles]]
# proof = "find"                   # find: the archive lists it; commitment: it takes responsibility; status: it said success
# accept_demonstration = false     # true lets results of demonstration models in

# Which studies go through which pipeline.
# [[routes]]
# name = "chest-ct"
# match = { Modality = "CT", BodyPartExamined = ["CHEST", "THORAX", ""] }
#                                  # * is a wildcard, "" empty or absent, "<=3.0" a number; CalledAETitle too
# pipeline = "chest_ct"
# speed = "exact"                  # exact or fast
# select = "best"                  # best series of a study, or each
# send_to = ["pacs"]
# results = ["SEG", "SR", "SC"]    # also GSPS, KOS, PM, PDF, FHIR, as far as the destination's profile takes them
# quiet_s = 10                     # a study is complete when nothing came for this long
# max_wait_s = 600                 # … and at the latest after this
# send_not_run = true              # tell the destinations when the AI could not run
# count_at = ""                    # peer to ask how many images it lists (C-FIND) when a series falls silent
# priority = 0                     # of its jobs, -100 to 100; a step is worth ten minutes of waiting in the queue
# draw_identity = false            # true: name, ID and dates in the pixels of captures (Burned In Annotation YES)
# allow_many_frames_of_reference = false   # true: take a series whose images name several, with a warning in the result
"""


def settings_template(data_dir: Path) -> str:
    """The text of a settings file for this data folder."""
    return _TEXT.replace("DATA_DIR", json.dumps(str(data_dir)))
