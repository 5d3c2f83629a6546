#!/bin/sh
# BiC and replay (baseline1) on glyphs100 with 48 instead of 16 epochs: does longer training help
# BiC more? BiC takes 15 to 19 minutes and replay 11 to 15 on one of two cores, with another run on
# the other.
set -eu
. "$(dirname "$0")/../experiment.sh"

for seed in 1993 1 2; do
    experiment "bic_48_$seed" --dataset=glyphs100 --seed=$seed --train_epochs=48
    experiment "baseline1_48_$seed" --dataset=glyphs100 --seed=$seed --train_epochs=48 \
        --nobias_correction --nodistillation
done
tables logs/glyphs100/bic_*.log logs/glyphs100/baseline1_*.log --compare \
    --title='BiC and replay on glyphs100 with 48 and 16 epochs, ResNet-8'  # bic_*: 16 epochs
