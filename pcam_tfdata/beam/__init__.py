"""Tasks on Apache Beam (Flink, Spark, Dataflow), in place of processes here.

In: a function and its arguments. Out: what it returns for each, in order.
"""
