"""A plain loop: `by_loop.py WARMUP_STEPS STEPS` prints the seconds of each as JSON."""

import json
import sys
import time

from beside.bare import make_step

if __name__ == "__main__":
    warmup_steps, steps = map(int, sys.argv[1:])
    step = make_step()
    for _ in range(warmup_steps):
        step()
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    print(json.dumps(times))
