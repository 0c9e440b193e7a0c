"""A made recording of a known network that learns, tests/data/learning.nwb: `python tests/make_learning_nwb.py`.

60 units with recurrent weights of tensor rank 3, W^(k) = sum_j c_j^(k) a_j b_j', prepare one of four reaches and make
it. The first trial factor grows while a perturbation is on and returns in washout, the second drifts, and the third
grows slowly and stays. 29 of 30 neurons fire as Poisson processes with the rate softplus(M tanh(x) + bias); one never
fires. Four trials are marked bad (their neurons fire regardless of the network), one has no go cue, and the recording
ends in the midst of the last.
"""

import datetime
from pathlib import Path

import numpy as np

PATH = Path(__file__).parent / "data" / "learning.nwb"
TRIALS, UNITS, NEURONS, RANK, CONDITIONS = 60, 60, 30, 3, ("0", "90", "180", "270")
BIN_S, SAMPLES_PER_BIN, TAU_S = 0.01, 300, 0.1  # 30000 samples per second
SILENT, BAD, WITHOUT_GO, CUT = 17, (5, 23, 24, 41), 33, 59
TARGET, GO, BINS = 10, 40, 142  # bins from the start of a trial to target, go cue and end
START_BINS = 160  # from the start of a trial to that of the next one


def truth():
    """The network, and the rates it makes: a dict of arrays, `rates` (time, trial, neuron) in Hz from trial start."""
    rng = np.random.default_rng(2023)
    a = np.linalg.qr(rng.normal(size=(UNITS, RANK)))[0]  # (unit, rank)
    turn = np.deg2rad(60)
    in_a = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    b = a @ in_a  # (unit, rank)
    epoch = np.repeat(["baseline", "perturbation", "washout"], TRIALS // 3)
    third = np.arange(TRIALS // 3)
    fast, slow, before = 1 - np.exp(-third / 3), 1 - np.exp(-third / 8), 0.0 * third
    c = np.stack(  # (trial, rank)
        [
            2.1 + 0.9 * np.concatenate([before, fast, fast[-1] - fast]),
            2.1 - 0.9 * np.linspace(0, 1, TRIALS),
            0.5 + 0.9 * np.concatenate([before, slow, slow[-1] + before]),
        ],
        axis=1,
    )
    condition = rng.permutation(np.arange(TRIALS) % 4)
    angle = np.deg2rad(90.0 * np.arange(4))
    z0 = np.sqrt(UNITS) * np.stack([np.cos(angle), np.sin(angle), 0.6 * np.cos(2 * angle)], axis=1)  # (condition, rank)
    decoder = rng.normal(size=(NEURONS, RANK)) @ a.T * 4.0  # (neuron, unit)
    bias = rng.uniform(12.0, 24.0, size=NEURONS)
    prepared = 1 - np.exp(-np.arange(1, GO - TARGET + 1) * BIN_S / 0.08)
    x = np.zeros((TRIALS, UNITS))
    states = np.zeros((BINS, TRIALS, UNITS))
    for t in range(BINS):
        if TARGET <= t < GO:
            x = prepared[t - TARGET] * z0[condition] @ a.T
        elif t >= GO:
            x = x + BIN_S / TAU_S * (-x + c * (np.tanh(x) @ b) @ a.T)
        states[t] = x
    rates = np.logaddexp(0, np.tanh(states) @ decoder.T + bias)  # (time, trial, neuron)
    rates[..., SILENT] = 0
    return {"a": a, "b": b, "c": c, "z0": z0, "decoder": decoder, "bias": bias, "epoch": epoch,
            "condition": np.array(CONDITIONS)[condition], "rates": rates}  # fmt: skip


def spikes(rates):
    """Spike samples of every neuron, rising: Poisson counts per bin, uniform within it, never on the edge of a bin."""
    rng = np.random.default_rng(42)
    fired = rates.copy()
    fired[GO:, WITHOUT_GO] = fired[0, WITHOUT_GO]  # without a cue nothing happens
    fired[:, list(BAD)] = rng.permuted(fired[:, list(BAD)], axis=0)
    fired[80:, CUT] = 0  # where the recording has ended
    counts = rng.poisson(fired * BIN_S)  # (time, trial, neuron)
    first = (np.arange(TRIALS) * START_BINS + np.arange(BINS)[:, None]) * SAMPLES_PER_BIN  # (time, trial)
    samples = []
    for neuron in range(NEURONS):
        starts = np.repeat(first.ravel(), counts[..., neuron].ravel())
        samples.append(np.unique(starts + rng.integers(0, SAMPLES_PER_BIN, size=starts.size)))
    return samples


def write(path=PATH):
    """Write the file."""
    from hdmf.backends.hdf5.h5_utils import H5DataIO
    from pynwb import NWBHDF5IO, NWBFile

    known = truth()
    file = NWBFile(
        session_description="A made recording of a network of known weights that learns; no animal.",
        identifier="tauflow-learning",
        session_start_time=datetime.datetime(2023, 1, 1, tzinfo=datetime.UTC),
        file_create_date=datetime.datetime(2023, 1, 1, tzinfo=datetime.UTC),
    )
    file.add_trial_column("target_time", "when the target appears, in seconds")
    file.add_trial_column("go_cue_time", "when the go cue sounds, in seconds; NaN without one")
    file.add_trial_column("target", "direction of the reach in degrees")
    file.add_trial_column("epoch", "baseline, perturbation or washout")
    file.add_trial_column("good", "whether the trial may be used")
    for k in range(TRIALS):
        start, target, go, stop = ((k * START_BINS + bins) * BIN_S for bins in (0, TARGET, GO, BINS))
        file.add_trial(
            start_time=start,
            stop_time=stop,
            target_time=target,
            go_cue_time=np.nan if k == WITHOUT_GO else go,
            target=str(known["condition"][k]),
            epoch=str(known["epoch"][k]),
            good=k not in BAD,
        )
    end = (CUT * START_BINS + 80) * BIN_S
    for samples in spikes(known["rates"]):
        file.add_unit(spike_times=(samples + 0.5) / (SAMPLES_PER_BIN / BIN_S), obs_intervals=np.array([[0.0, end]]))
    for column in file.units.columns:
        column.set_data_io(H5DataIO, {"compression": "gzip", "compression_opts": 9, "shuffle": True})
    path.parent.mkdir(exist_ok=True)
    with NWBHDF5IO(path, "w") as io:
        io.write(file, cache_spec=False)


if __name__ == "__main__":
    write()
