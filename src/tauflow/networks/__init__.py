"""Networks: thin modules from inputs (of `LowTensorRankRNN`: conditions of trials) to states and outputs."""

from tauflow.networks.continuous import ContinuousLinearRNN, coupling, outlier_pair
from tauflow.networks.low_tensor_rank import LowTensorRankRNN
from tauflow.networks.rate import RateRNN
from tauflow.networks.response import Response

__all__ = ["NETWORKS", "ContinuousLinearRNN", "LowTensorRankRNN", "RateRNN", "Response", "coupling", "outlier_pair"]

NETWORKS: dict[str, type] = {"RateRNN": RateRNN, "ContinuousLinearRNN": ContinuousLinearRNN}
