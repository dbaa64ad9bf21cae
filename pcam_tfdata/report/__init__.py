"""One page of HTML about runs, for people.

A records folder, runs that were scored and what an audit found come in; a page that
needs nothing else goes out. Nothing is computed by a network.
"""
