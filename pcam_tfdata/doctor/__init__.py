"""Whether this machine can train: what is wrong, and what mends it.

In: what driver, TensorFlow, packages and kernel say; a records folder. Out: findings.
"""
