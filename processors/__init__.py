"""The stages that turn a video into judged clips, as plain functions over batches.

No stage knows Kafka, Flink, Ray or Paimon; `ingest` hosts the first two stages and
`processors.pool` the others.
"""
