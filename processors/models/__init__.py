"""Stages whose models come from a model hub and run with torch; see ``make setup-models``."""
