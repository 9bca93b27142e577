"""Reading video files: containers, what is in them, and the limited process that does it."""
