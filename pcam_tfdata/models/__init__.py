"""Networks, one per module, and a network's logits of all patches.

In: uint8 patches [B, 96, 96, 3]. Out: float32 logits [B, 1], the log odds of
label 1.
"""
