#!/usr/bin/env python3
"""Times the host rank beside other implementations of batch normalization, in turn in one run, and prints a table of ratios.

  scripts/peers.py PEERS                                   # every workload and peer that is installed, one round
  scripts/peers.py PEERS --workloads tiny,rn_128x28 --worlds 1,2 --rounds 3 --out peers.jsonl
  scripts/peers.py --table peers.jsonl [--compact]         # the table again, from what was measured before

PEERS is a folder with bench_peers.py and bench_worker.py, which time the others and print JSON lines. Every measurement of
a peer lies between two of ours of the same layout and number of ranks, under the same conditions: one set of tensors that
is used again and again, forward and backward in turn, evaluation by itself, and as many threads; glibc is told to keep
freed memory for the peers, as ours is kept by its owner. A ratio is ours by theirs, the median over such triples; the ratio
of the shortest times that were seen at all stands beside it, which other work on the machine disturbs least. Below 1 ours
is faster. The peer of a row is the one that this layer is slowest beside.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The strongest of each kind, and the numbers of ranks that they are the strongest for.
PEERS = {"torch_bn": [1], "torch_compile_bn": [1], "tf_fused": [1], "ort": [1], "torch_sync_inductor": [2, 4],
         "flax_shard_map": [2, 4]}
LETTERS = {"torch_bn": "T", "torch_compile_bn": "C", "tf_fused": "F", "ort": "O", "torch_sync_inductor": "S",
           "flax_shard_map": "X"}
LAYOUTS = {"NCHW": "first", "NHWC": "last", "channels_last": "last"}
PASSES = {"fwd_train": "forward", "bwd": "backward", "step": "step", "eval": "eval"}
OURS = "syncbn"
# Peers whose ranks are processes, each with a clock of its own. One that waits for a core has not started it: where there
# are more ranks than threads, an evaluation, in which nobody waits for anybody, is timed as if a rank had the machine alone.
PROCESSES = {"torch_sync_inductor"}
# Of each measurement of a peer, as its own script has them.
WARM_UP, MAX_SECONDS, TIMEOUT_S = 4, 20, 900


def json_lines(text, prefix=""):
    lines = (line.removeprefix(prefix) for line in text.splitlines() if line.startswith(prefix + "{"))
    return [json.loads(line) for line in lines]


def note(text):
    print(text, file=sys.stderr, flush=True)


def ours(bench, workloads, layout, world, options):
    """One line per workload and pass."""
    names = [name for name, dims in workloads.items() if layout == "first" or dims > 2]
    command = [bench, "--json", "--adapter", "host", "--reuse", "--repeats", str(options.repeats), "--layout", layout]
    command += ["--workloads", ",".join(names), "--devices", str(world)]
    environment = dict(os.environ, RAYON_NUM_THREADS=str(options.threads))
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}")
    steps = {}
    for line in json_lines(done.stdout):
        key = dict(peer=OURS, workload=line["workload"], layout=layout, world=world)
        copied = line["bytes"] / line["copy_gb_per_s"] / 1e6
        yield key | {"pass": line["pass"], "ms": line["wall_ms"], "min_ms": line["wall_min_ms"], "copy_ms": copied}
        steps.setdefault(line["workload"], []).append(line)
    for workload, (forward, backward, _) in steps.items():
        both = {name: forward[name] + backward[name] for name in ("wall_ms", "wall_min_ms")}
        yield dict(peer=OURS, workload=workload, layout=layout, world=world, ms=both["wall_ms"],
                   min_ms=both["wall_min_ms"], **{"pass": "step"})


def theirs(python, peer, layout, world, workloads, port, options):
    """The same of a peer, by its own worker."""
    count = str(options.threads)
    environment = dict(os.environ, MALLOC_MMAP_MAX_="0", MALLOC_TRIM_THRESHOLD_=str(16 << 30), CUDA_VISIBLE_DEVICES="",
                       PYTHONWARNINGS="ignore", OMP_NUM_THREADS=count, MKL_NUM_THREADS=count, OPENBLAS_NUM_THREADS=count,
                       TF_NUM_INTRAOP_THREADS=count, TF_NUM_INTEROP_THREADS=count)
    chosen = [w for w in workloads if not (layout == "channels_last" and len(w["shape"]) not in (4, 5))]
    command = [python, options.folder.resolve() / "bench_worker.py", "--peer", peer, "--world", world, "--layout", layout,
               "--workloads", json.dumps(chosen), "--repeats", options.repeats, "--warmup", WARM_UP, "--threads", count,
               "--max-seconds", MAX_SECONDS, "--port", port, "--tag", json.dumps(dict(malloc="tuned"))]
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment,
                              cwd=Path.home(), timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return note(f"  {peer}: no end after {TIMEOUT_S} s")
    if done.returncode:
        note(f"  {peer} ended with {done.returncode}: {done.stderr[-600:]}")
    for line in json_lines(done.stdout, "JSON "):
        alone = peer in PROCESSES and world > options.threads and line.get("phase") == "eval"
        # A backward that is a step less a forward has not been measured; its step has.
        if line["type"] == "time" and not line["derived"] and not alone:
            # A matrix (N, C) lies the same way in both layouts.
            named = LAYOUTS[line["layout"]] if len(line["shape"]) > 2 else "first"
            yield dict(peer=line["peer"], workload=line["workload"], layout=named, world=line["world"],
                       ms=line["median_ms"], min_ms=line["min_ms"], **{"pass": PASSES[line["phase"]]})
        elif line["type"] == "error":
            note(f"  {peer}, {line.get('workload')}: {line.get('error')}")


def key_of(line):
    return line["workload"], line["layout"], line["world"], line["pass"]


def rows(lines):
    """Of every workload, layout, number of ranks and pass: ours, the peer that it is slowest beside, and the ratios."""
    mine, others, copies = {}, {}, {}
    for place, line in enumerate(lines):
        if "missing" in line:
            continue
        if line["peer"] == OURS:
            mine.setdefault(key_of(line), []).append((place, line))
            if "copy_ms" in line:
                copies.setdefault(key_of(line), []).append(line["copy_ms"])
        else:
            others.setdefault(key_of(line), {}).setdefault(line["peer"], []).append((place, line))
    for key, measured in mine.items():
        def beside(place, line):
            """Ours before and after it, by it."""
            before = [line["ms"] for at, line in measured if at < place][-1:]
            after = [line["ms"] for at, line in measured if at > place][:1]
            return statistics.mean(before + after) / line["ms"]

        ours_ms = statistics.median(line["ms"] for _, line in measured)
        row = dict(ms=ours_ms, peer=None, copy=ours_ms / statistics.median(copies[key]) if key in copies else None)
        ratios = {peer: statistics.median(beside(*found) for found in all_found)
                  for peer, all_found in others.get(key, {}).items()}
        peer = max(ratios, key=ratios.get, default=None)
        if peer:
            found = [line for _, line in others[key][peer]]
            shortest = min(line["min_ms"] for _, line in measured)
            row |= dict(peer=peer, its_ms=statistics.median(line["ms"] for line in found), ratio=ratios[peer],
                        of_shortest=shortest / min(line["min_ms"] for line in found))
        yield key, row


def table(lines, compact):
    """Markdown: a row for every pass, or one for all passes of a workload, layout and number of ranks."""
    found = dict(rows(lines))
    if compact:
        print_compact(found)
    else:
        print_long(found)
    beside = [row for row in found.values() if row["peer"]]
    print(f"\n{sum(row['ratio'] > 1 for row in beside)} of {len(beside)} rows behind a peer.")
    for what in sorted({line["missing"] for line in lines if "missing" in line}):
        print(f"\nNot installed: {what}")


def print_long(found):
    print("| workload | layout | ranks | pass | ours, ms | peer | its ms | ours / peer | of the shortest | ours / copy |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for key, row in found.items():
        cells = ["–"] * 4
        if row["peer"]:
            cells = [row["peer"], f"{row['its_ms']:.3f}", f"{row['ratio']:.2f}", f"{row['of_shortest']:.2f}"]
        copy = f"{row['copy']:.2f}" if row["copy"] else "–"
        print(f"| {' | '.join(map(str, key))} | {row['ms']:.3f} | {' | '.join(cells)} | {copy} |")


def print_compact(found):
    print("| workload | layout | ranks | forward | backward | eval | step |")
    print("|---|---|---|---|---|---|---|")
    for place in dict.fromkeys(key[:3] for key in found):
        cells = []
        for name in PASSES.values():
            row = found.get((*place, name))
            if not row:
                cells.append("–")
                continue
            cell = f"{row['ms']:.3g}" + (f" ({row['copy']:.2f})" if row["copy"] else "")
            if row["peer"]:
                ratio = f"{row['ratio']:.2f}"
                cell += f": {f'**{ratio}**' if row['ratio'] > 1 else ratio}, {row['of_shortest']:.2f} {LETTERS[row['peer']]}"
            cells.append(cell)
        forward, backward, step, evaluation = cells
        print(f"| {' | '.join(map(str, place))} | {forward} | {backward} | {evaluation} | {step} |")


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, metavar="PEERS", help="folder with bench_peers.py")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--workloads", help="default: all that the peers' script knows")
    parser.add_argument("--worlds", default="1,2,4", help="numbers of ranks")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15, help="of each measurement")
    parser.add_argument("--threads", type=int, default=2, help="of every implementation in all")
    parser.add_argument("--out", type=Path, help="JSON lines of all that was measured, appended")
    parser.add_argument("--table", type=Path, help="print the table of such a file, and measure nothing")
    parser.add_argument("--compact", action="store_true",
                        help="one row for all passes: ours in ms (by the copy): ours by the peer's, of the shortest, the peer")
    options = parser.parse_args()
    if options.table:
        return table(json_lines(options.table.read_text()), options.compact)
    if not options.folder or not (options.folder / "bench_worker.py").is_file():
        parser.error("PEERS must be a folder with bench_peers.py and bench_worker.py")
    listed = subprocess.run([sys.executable, options.folder / "bench_peers.py", "--list"], stdout=subprocess.PIPE, check=True)
    known = json.loads(listed.stdout)
    workloads = [w for w in known["workloads"] if not options.workloads or w["name"] in options.workloads.split(",")]
    dims = {w["name"]: len(w["shape"]) for w in workloads}
    worlds = [int(world) for world in options.worlds.split(",")]
    environments = Path(os.environ.get("SYNCBN_PEER_VENVS", Path.home() / ".cache" / "syncbn-peers"))
    subprocess.run(["cargo", "build", "--release", "--example", "bench"], cwd=ROOT, check=True)
    # A build of another version meanwhile leaves the one that is measured alone.
    bench = ROOT / "target" / "release" / "examples" / "bench"

    lines = []

    def keep(found):
        found = list(found)
        lines.extend(found)
        if options.out:
            with options.out.open("a") as out:
                out.writelines(json.dumps(line) + "\n" for line in found)

    plan = []
    for peer in options.peers.split(","):
        if peer not in known["peers"]:
            parser.error(f"no peer is called {peer}; there are {', '.join(known['peers'])}")
        environment, its_worlds, layouts = known["peers"][peer]
        python = environments / environment / "bin" / "python"
        if not python.is_file():
            missing = f"{peer}, which needs {python.parent.parent} (`{options.folder}/setup.sh {environment}`)"
            note(f"not installed: {missing}")
            keep([dict(missing=missing)])
            continue
        wanted = [world for world in worlds if world in its_worlds and world in PEERS.get(peer, worlds)]
        plan += [(layout, world, peer, python) for world in wanted for layout in layouts]
    # Those that ours is the same beside follow each other, and share its measurement in between.
    plan.sort(key=lambda step: (step[1], LAYOUTS[step[0]]))
    for turn in range(options.rounds):
        before = None
        for number, (layout, world, peer, python) in enumerate(plan):
            place = (LAYOUTS[layout], world)
            if place != before:
                keep(ours(bench, dims, *place, options))
            note(f"round {turn + 1}: {peer}, {layout}, {world} rank(s)")
            port = 29700 + (os.getpid() + number) % 2000
            keep(theirs(python, peer, layout, world, workloads, port, options))
            keep(ours(bench, dims, *place, options))
            before = place
    table(lines, options.compact)


if __name__ == "__main__":
    main()
