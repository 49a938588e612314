#!/usr/bin/env bash
# A suite on nodes of Slurm: Ray on all of them, then `tlbench run`.
#
#   sbatch docs/cluster/slurm.sh suite.yaml --db /shared/results.db
#
# What follows the script goes to `tlbench run`. The database has to lie on a disk that
# outlives the job, and the first node reaches. A job near its time limit ends the run
# as Ctrl-C does, with everything finished kept. A following job does what is missing:
#
#   sbatch --dependency=afternotok:JOB docs/cluster/slurm.sh --resume --db /shared/results.db
#
# Checked: `bash -n`, and whole runs on one machine with stand-ins for srun and
# scontrol that start the real Ray on two addresses (tests/integration/test_ways.py).
# Never run: a real Slurm, several machines, GPUs.

#SBATCH --job-name=tlbench
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
##SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --output=tlbench-%j.log

set -euo pipefail

JOIN_TIMEOUT_S=${JOIN_TIMEOUT_S:-300}   # how long all nodes may take to join
END_TIMEOUT_S=30                        # how long Ray may take to end

# The environment of tlbench, as it has to be on every node:
# source /shared/environment/bin/activate

# Only who holds the token may use this Ray. Slurm hands the environment to the nodes.
RAY_AUTH_TOKEN=$(python3 -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 # at the end nothing is left to wait for

address_of() {
    local name
    name=$(scontrol --oneliner show node "$1" | sed -n 's/.*\bNodeAddr=\([^ ]*\).*/\1/p')
    getent ahostsv4 "${name:-$1}" | awk 'NR == 1 { print $1 }'
}

# Jobs that share a node need ports and folders of their own. Ray's logs stay in the
# folder, on each node.
port=$((20000 + SLURM_JOB_ID % 20000))
folder=${TMPDIR:-/tmp}/ray-$SLURM_JOB_ID
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
address=$(address_of "${hosts[0]}"):$port

steps=() # Slurm's, each with a Ray
driver= # what the time limit ends first
end_ray() {
    trap '' TERM
    if ((${#steps[@]})); then
        kill -TERM "${steps[@]}" 2>/dev/null || true
        for ((waited = 0; waited < END_TIMEOUT_S; waited++)); do
            kill -0 "${steps[@]}" 2>/dev/null || break
            sleep 1
        done
        kill -KILL "${steps[@]}" 2>/dev/null || true
    fi
}
trap end_ray EXIT
signals=0
trap 'signals=$((signals + 1)); kill -TERM "$driver" 2>/dev/null || exit 143' TERM

# Run something that the time limit is to end; its exit code.
drive() {
    "$@" &
    driver=$!
    local code=0 seen=-1
    while ((seen != signals)); do # a signal ends the wait, not yet what it waits for
        seen=$signals code=0
        wait "$driver" || code=$?
    done
    return "$code"
}

start_ray() { # on HOST, with these options
    local host=$1
    shift
    srun --nodes=1 --ntasks=1 --overlap --nodelist="$host" \
        --cpus-per-task="$SLURM_CPUS_PER_TASK" \
        ray start "$@" --node-ip-address="$(address_of "$host")" \
        --num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats --block &
    steps+=($!)
}

start_ray "${hosts[0]}" --head --port="$port" --include-dashboard=false \
    --temp-dir="$folder"
for host in "${hosts[@]:1}"; do
    start_ray "$host" --address="$address"
done

wait_for_nodes() {
    exec python3 - "$address" "${#hosts[@]}" "$JOIN_TIMEOUT_S" <<'PYTHON'
import logging
import sys
import time

import ray

address, wanted, timeout_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
deadline = time.monotonic() + timeout_s
joined = 0
while joined < wanted:
    if time.monotonic() > deadline:
        sys.exit(f"{joined} of {wanted} nodes joined Ray in {timeout_s:g} s")
    try:
        if not ray.is_initialized():
            ray.init(address, logging_level=logging.CRITICAL, log_to_driver=False)
        joined = sum(node["Alive"] for node in ray.nodes())
    except ConnectionError:  # the head is not up yet
        pass
    time.sleep(1)
PYTHON
}

drive wait_for_nodes
drive tlbench run "$@" --address "$address"
