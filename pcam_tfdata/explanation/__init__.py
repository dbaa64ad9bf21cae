"""Where in patches a network finds tumor, and whether that is to be believed.

A run and a records folder come in; pictures and checks go out beside its scores.
"""
