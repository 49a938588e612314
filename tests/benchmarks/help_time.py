"""Time of `tlbench --help` over that of a bare Typer program, alternating.

python tests/benchmarks/help_time.py --pairs 20
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tlbench.statistics import compare_ratio

TARGET = 1.5
BARE = """
import typer

app = typer.Typer()


@app.command()
def hello(name: str) -> None:
    print(name)


if __name__ == "__main__":
    app()
"""


def time_s(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "bare.py")
        program.write_text(BARE)
        commands = {
            "bare": [sys.executable, str(program), "--help"],
            "ours": [str(Path(sys.executable).with_name("tlbench")), "--help"],
        }
        times: dict[str, dict[int, float]] = {"bare": {}, "ours": {}}
        for number in range(-1, pairs):
            for name, command in commands.items():
                times[name][number] = time_s(command)
        for name in times:
            del times[name][-1]  # files into the page cache
    ratio = compare_ratio(times["bare"], times["ours"], "lower")
    print(f"{ratio.value:.3f} x bare, 95 % interval {ratio.interval}; target {TARGET}")


if __name__ == "__main__":
    main()
