"""The plugin's half: the wire, the translation, the application."""
