"""The commands, one file a group.

Enters: words of a shell. Leaves: text for people, or exactly one JSON document (`--json`), and an exit code of the contract.
Promises: errors are one line `error: what — what to do` on stderr, never a traceback without `--debug`; what a command does not
need is not imported: `dicomnode status` loads no torch.
"""
