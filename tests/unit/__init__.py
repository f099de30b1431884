"""Pure parts, with values."""
