"""DataJuicer's other operators, by name: they run in its own environment, beside ours."""
