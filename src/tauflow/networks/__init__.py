"""Networks: thin modules from inputs to states and outputs."""

from tauflow.networks.continuous import ContinuousLinearRNN, coupling, outlier_pair
from tauflow.networks.rate import RateRNN
from tauflow.networks.response import Response

__all__ = ["NETWORKS", "ContinuousLinearRNN", "RateRNN", "Response", "coupling", "outlier_pair"]

NETWORKS: dict[str, type] = {"RateRNN": RateRNN, "ContinuousLinearRNN": ContinuousLinearRNN}
