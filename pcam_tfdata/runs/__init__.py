"""A run folder: what was trained, how far, and what came of it.

`training`, `evaluation` and `prediction` meet through the files of such a folder;
`outputs` says where any command may write.
"""
