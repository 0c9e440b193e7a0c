"""Learning: how weights move, and what is recorded on the way."""

from tauflow.learning.descent import descend, ensemble
from tauflow.learning.flow_ensemble import flow_ensemble
from tauflow.learning.gradient_flow import flow
from tauflow.learning.groups import network_key
from tauflow.learning.progress import Progress
from tauflow.learning.record import Record

__all__ = ["Progress", "Record", "descend", "ensemble", "flow", "flow_ensemble", "network_key"]
