"""The wheel: built, installed, and run with the sources out of sight."""
