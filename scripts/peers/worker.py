#!/usr/bin/env python3
"""Runs one peer with one number of ranks, and prints lines of JSON behind the word JSON.

`compare.py` starts it with the python of the peer's own virtual environment. By hand:

  ~/.cache/syncbn-peers/torch/bin/python scripts/peers/worker.py --peer torch_bn --check-only

Lines of type "check" compare with the definition in f64, lines of type "time" have medians in ms,
lines of type "error" say what did not run.
"""
import argparse
import importlib
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import catalog  # noqa: E402


def main():
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("--peer", required=True, choices=catalog.PEERS)
    parser.add_argument("--world", type=int, default=1, help="ranks")
    parser.add_argument("--layout", help="default: the first that the peer has")
    parser.add_argument("--workloads", default=",".join(catalog.WORKLOADS))
    parser.add_argument("--threads", type=int, default=2, help="of all ranks together")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--warm-up", type=int, default=4)
    parser.add_argument("--max-seconds", type=float, default=20, help="of each measurement")
    parser.add_argument("--check-only", action="store_true")
    parser.add_argument("--port", type=int, default=29700, help="of a rendezvous between processes")
    options = parser.parse_args()
    peer = catalog.PEERS[options.peer]
    layout = options.layout or peer.layouts[0]
    names = options.workloads.split(",")
    workloads = {name: shape for name, shape in catalog.WORKLOADS.items()
                 if name in names and catalog.fits(layout, shape)}
    # Before a framework is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GLOG_v", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import common
    common.limit_threads(options.threads)
    bench = common.Bench(options.peer, options.world, layout, options.threads, options.repeats,
                         options.warm_up, options.max_seconds, options.check_only, options.port)
    importlib.import_module(peer.module).run(bench, workloads)


if __name__ == "__main__":
    main()
