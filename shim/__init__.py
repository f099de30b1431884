"""Make every TLS client of an Anchore container trust the CA files mounted on it."""

__version__ = "0.1.0"
