#!/bin/sh
# BiC and baseline-1 on glyphs100 with three times the epochs, 48: whether what BiC lacks there is
# training. BiC took 15 minutes and baseline-1 11 on one of two cores, with another run on the other.
set -eu
. "$(dirname "$0")/../experiment.sh"

experiment bic_48 --dataset=glyphs100 --train_epochs=48
experiment baseline1_48 --dataset=glyphs100 --train_epochs=48 --nobias_correction --nodistillation
tables logs/glyphs100/bic_1993.log logs/glyphs100/baseline1_1993.log --compare  # 16 epochs
