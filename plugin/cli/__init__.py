"""The command ``weft``. It imports none of the server's libraries, so that it answers at once."""
