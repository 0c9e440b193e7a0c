"""tauflow watches recurrent networks learn."""

__version__ = "0.1.0"
