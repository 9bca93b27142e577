"""Kafka and Flink: the producer, the jobs ``arrivals`` and ``split``, and how they are submitted.

The stages that the split job runs are in `processors`; starting a broker or a cluster is not
done here (`deploy.local`). Modules that import pyflink run in the flink environment only:
`arrivals`, `split_job`, `split_operators` and `flink_env`.
"""
