#!/bin/sh
# HalfCheetah-2x3 on the cpu preset: 20 000 env steps, three seeds, one after the other, about 20 minutes each on one core.
# Stopped in the middle, it goes on where it was. Results: OUT/seedN (run folders) and OUT/curves.png.
#   sh benchmarks/learn_halfcheetah.sh [OUT]
set -eu
out=${1:-runs/learn_halfcheetah}
dima=${DIMA:-dima}
scores=
for seed in 0 1 2; do
    run=$out/seed$seed
    if [ -d "$run" ]; then
        "$dima" train resume="$run"
    else
        "$dima" train env=mamujoco/halfcheetah-2x3 preset=cpu device=cpu num_threads=1 seed=$seed \
            env_steps=20000 trainer.eval_episodes=10 out="$run"
    fi
    scores="$scores $run/scores.json"
done
# shellcheck disable=SC2086
python "$(dirname "$0")/plot_scores.py" "$out/curves.png" $scores
