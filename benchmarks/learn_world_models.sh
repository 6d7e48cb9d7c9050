#!/bin/sh
# HalfCheetah-2x3 on the cpu preset with each world model: 20 000 env steps, one seed, one model after the other, 15 to 30
# minutes each on one core. Stopped in the middle, it goes on where it was. Results: OUT/MODEL (run folders), OUT/curves.png.
#   [MODELS="rssm dima"] [SEED=1] sh benchmarks/learn_world_models.sh [OUT]
set -eu
seed=${SEED:-0}
out=${1:-runs/learn_world_models/seed$seed}
dima=${DIMA:-dima}
scores=
for model in ${MODELS:-dima ensemble rssm transformer}; do
    run=$out/$model
    if [ -d "$run" ]; then
        "$dima" train resume="$run" env_steps=20000
    else
        "$dima" train env=mamujoco/halfcheetah-2x3 world_model="$model" preset=cpu device=cpu num_threads=1 seed="$seed" \
            env_steps=20000 out="$run"
    fi
    scores="$scores $run/scores.json"
done
# shellcheck disable=SC2086
python "$(dirname "$0")/plot_scores.py" "$out/curves.png" $scores
