"""Stages whose models are large: of a model hub, run with torch (``make setup-models``), or asked
for over a network, which needs neither."""
