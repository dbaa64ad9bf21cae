"""Trains networks: a records folder and options in, a run folder out.

`train` opens a run, `loop` goes on with it, and `steps` computes a step on
the devices, after `augmentation` changed the patches; `checkpoints` keep how far
it has come.
"""
