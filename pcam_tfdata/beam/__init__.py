"""Tasks on Apache Beam, in place of processes on this machine.

In: a function and its arguments. Out: what it returns for each, in order; workers
of Flink, Spark, Dataflow or a local runner called it.
"""
