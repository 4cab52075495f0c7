"""One process each: `receive`, `work`, `deliver`, `sweep`, and the supervisor that starts them, watches them and ends them.

Enters: `Settings`. Leaves: a running node. Promises: rooms are wired together here and nowhere else; a role dies with its
supervisor and a crashed role starts again; SIGTERM ends every role in order and gives unfinished work back; only `work` loads
torch, MONAI or highdicom.
"""

ROLES = ("receive", "work", "deliver", "sweep")
LATER_ROLES = ("web",)

__all__ = ["LATER_ROLES", "ROLES"]
