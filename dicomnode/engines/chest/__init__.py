"""From a chest network's probabilities to lungs, lesions and a classification.

Enters: CT values and probabilities on canonical axes (z to the head, y to the back, x to the patient's left). Leaves: body
mask, region verdict, sides, measured lesions. Promises: sides come from patient coordinates, never from array order; every
measure is taken on the source grid; pure numpy and scipy, no torch.
"""
