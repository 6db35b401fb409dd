"""The pure files."""
