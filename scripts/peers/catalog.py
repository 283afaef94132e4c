"""What can be timed: workloads, other implementations ("peers"), and where these are installed.

Nothing here imports a framework. `common.py` has what the peers share, `peer_*.py` has the peers.
"""
import os
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Name and shape (N, C, spatial…) of the whole batch: those of crates/syncbn-bench.
WORKLOADS = {
    "rn_64x112": [32, 64, 112, 112],
    "rn_256x56": [32, 256, 56, 56],
    "rn_128x28": [32, 128, 28, 28],
    "rn_512x28": [32, 512, 28, 28],
    "rn_1024x14": [32, 1024, 14, 14],
    "rn_2048x7": [32, 2048, 7, 7],
    "mlp_4096x1024": [4096, 1024],
    "video": [4, 64, 16, 56, 56],
    "pointcloud": [32, 128, 4096],
    "tiny": [8, 16, 8, 8],
}


class Peer:
    """One implementation: its module, its virtual environment, its ranks and layouts.

    `layouts` names what the peer calls its layouts; `strongest_at` the numbers of ranks at which it
    was the fastest of its kind in first trials, for which the table takes it.
    """

    def __init__(self, module, environment, worlds, layouts, strongest_at=(), letter=None):
        self.module = module
        self.environment = environment
        self.worlds = worlds
        self.layouts = layouts
        self.strongest_at = strongest_at
        self.letter = letter

    def python(self):
        return environments() / self.environment / "bin" / "python"


# "channels_last" is a memory format of torch, for four and five dimensions.
TORCH = ["NCHW", "channels_last"]
PEERS = {
    "torch_bn": Peer("peer_torch", "torch", [1], TORCH, [1], "T"),
    "torch_compile_bn": Peer("peer_torch", "torch", [1], TORCH, [1], "C"),
    "torch_sync_aten": Peer("peer_torch_sync", "torch", [1, 2, 4], TORCH),
    "torch_sync_sums": Peer("peer_torch_sync", "torch", [1, 2, 4], TORCH),
    "torch_sync_inductor": Peer("peer_torch_sync", "torch", [1, 2, 4], ["NCHW"], [2, 4], "S"),
    "flax_gspmd": Peer("peer_flax", "jax", [1, 2, 4], ["NHWC", "NCHW"]),
    "flax_shard_map": Peer("peer_flax", "jax", [2, 4], ["NHWC", "NCHW"], [2, 4], "X"),
    "keras_sync": Peer("peer_tensorflow", "tf", [1, 2, 4], ["NHWC"]),
    "tf_fused": Peer("peer_tensorflow", "tf", [1], ["NHWC"], [1], "F"),
    "mindspore_bn": Peer("peer_mindspore", "ms", [1], ["NCHW"]),
    "paddle_bn": Peer("peer_paddle", "paddle", [1], ["NCHW"]),
    "ort": Peer("peer_onnxruntime", "onnx", [1], ["NCHW"], [1], "O"),
    "numpy_bn": Peer("peer_numpy", "torch", [1], ["NCHW"]),
}

# Peers whose ranks are processes, each with a clock of its own. One that waits for a core has not
# started its clock: where there are more ranks than threads, an evaluation, in which nobody waits
# for anybody, is timed as if a rank had the machine alone.
PROCESSES = {"torch_sync_aten", "torch_sync_sums", "torch_sync_inductor"}


def environments():
    """The folder of the virtual environments that setup.sh makes."""
    return Path(os.environ.get("SYNCBN_PEER_VENVS", Path.home() / ".cache" / "syncbn-peers"))


def fits(layout, shape):
    """Whether a shape has the layout."""
    return layout != "channels_last" or len(shape) in (4, 5)
