"""What crosses a boundary: ids, the Kafka message, the Paimon tables, the recipe, the settings.

Nothing here imports from the other packages, and nothing here needs Flink, Ray or Paimon:
the same modules are loaded in the Flink workers, the Ray workers and the command line.
"""
