"""The canary: a phantom that the node sends to itself, so that it is known that results still come out."""

# The name of its route and of the folder that its results go to.
CANARY = "canary"
# Under which it is sent. Only this machine may: whatever comes under it goes through the canary's route and no other.
CANARY_AE_TITLE = "DICOMNODE_CANARY"
