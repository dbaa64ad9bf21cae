"""Changes of patches that leave their labels alone, on the device.

In: uint8 patches [B, 96, 96, 3]. Out: the same shape and dtype. What is drawn
follows from the seed, the step and the index in the global batch.
"""
