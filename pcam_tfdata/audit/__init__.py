"""What is wrong with a data set: leaks, conflicts, blanks, shifts."""
