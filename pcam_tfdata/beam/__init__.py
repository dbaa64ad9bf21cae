"""Tasks on Apache Beam, in place of processes on this machine."""
