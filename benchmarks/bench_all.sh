#!/bin/sh
# Milliseconds for one update of each part, imagined env steps per second and per core-second for 600 rollouts of 15 steps, and
# peak memory: presets paper and cpu on HalfCheetah-2x3 and Ant-4x2. About five minutes on one core.
#   sh benchmarks/bench_all.sh [OUT]
set -eu
out=${1:-runs/bench_all}
dima=${DIMA:-dima}
for task in halfcheetah-2x3 ant-4x2; do
    for preset in paper cpu; do
        "$dima" bench env=mamujoco/$task preset=$preset device=${DEVICE:-cpu} num_threads=${THREADS:-1} \
            policy.num_rollouts=600 policy.horizon=15 out="$out/$task-$preset.json"
    done
done
