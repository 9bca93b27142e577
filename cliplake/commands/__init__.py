"""One module a command, each with a `register(app)`."""
