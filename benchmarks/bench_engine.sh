#!/bin/sh
# What the engine wins: imagination with and without it in one run, in turns, 600 rollouts of 15 steps, one thread; and, where
# BEFORE names a checkout of an older commit, updates and imagination of both versions in turns. About 20 minutes on one core.
#   sh benchmarks/bench_engine.sh [OUT] [BEFORE]
set -eu
out=${1:-runs/bench_engine}
before=${2:-}
dima=${DIMA:-dima}
python=${PYTHON:-python}
here=$(dirname "$0")
common="device=cpu num_threads=1 policy.num_rollouts=600 policy.horizon=15 bench_steps=1000"
small="world_model.reward_termination.action_encoder=linear"
for task in halfcheetah-2x3 ant-4x2; do
    # shellcheck disable=SC2086
    imagine() { "$dima" bench env=mamujoco/$task $common stages=[imagine] repeats=2 "$@"; }
    imagine preset=paper out="$out/$task-paper.json"
    imagine preset=paper $small out="$out/$task-paper-small-encoders.json"
    imagine preset=cpu out="$out/$task-cpu.json"
    imagine preset=paper world_model.action_encoder=perceiver policy.num_rollouts=96 policy.horizon=3 repeats=2 \
        out="$out/$task-perceiver.json"
done
task=halfcheetah-2x3
imagine preset=paper engine.precision=bfloat16 policy.horizon=3 repeats=2 out="$out/$task-paper-bfloat16.json"
if [ -n "$before" ]; then
    # shellcheck disable=SC2086
    versus() { "$python" "$here/versus.py" "$before" "$@" env=mamujoco/$task $common; }
    versus "$out/versus-paper.json" --repeats 3 stages=[parts,policy] preset=paper world_model.denoiser.num_targets=3 repeats=2
    versus "$out/versus-cpu.json" --repeats 3 preset=cpu repeats=7
fi
