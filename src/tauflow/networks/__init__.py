"""Networks: thin modules over the one recurrence, from inputs to states and outputs."""

from tauflow.networks.rate import RateRNN, Response

__all__ = ["NETWORKS", "RateRNN", "Response"]

NETWORKS: dict[str, type] = {"RateRNN": RateRNN}
