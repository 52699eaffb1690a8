"""The store as a file: what is wrong with it, and copies of it. With SQLite and nothing else, for the command alone."""
