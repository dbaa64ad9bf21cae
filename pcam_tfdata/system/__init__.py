"""Files, locks, worker processes, progress and signals: nothing about pathology.

What every other folder uses. It imports nothing of the package but `schema`.
"""
