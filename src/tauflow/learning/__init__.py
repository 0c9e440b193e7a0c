"""Learning: how weights move, and what is recorded on the way."""

from tauflow.learning.ensemble import descend, ensemble, network_key
from tauflow.learning.progress import Progress
from tauflow.learning.record import Record

__all__ = ["Progress", "Record", "descend", "ensemble", "network_key"]
