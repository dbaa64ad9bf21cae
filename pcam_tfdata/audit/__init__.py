"""What is wrong with a data set: leaks, conflicts, blanks, shifts.

In: a records folder, and others that it should share nothing with. Out: findings,
as text, JSON, a table and a page of pictures.
"""
