#!/bin/sh
# The paper's comparisons on glyphs100: three training seeds on one class order and split.
# baseline2 is replay + KD, baseline1 is replay, upper is joint training.
set -eu
. "$(dirname "$0")/../experiment.sh"

for seed in 1993 1 2; do
    experiment "bic_$seed" --dataset=glyphs100 --seed=$seed
    experiment "baseline2_$seed" --dataset=glyphs100 --seed=$seed --nobias_correction
    experiment "baseline1_$seed" --dataset=glyphs100 --seed=$seed --nobias_correction \
        --nodistillation
    experiment "upper_$seed" --dataset=glyphs100 --seed=$seed --num_increments=1
    experiment "random_$seed" --dataset=glyphs100 --seed=$seed --exemplar_selection=random
done
tables --compare --title='The paper'\''s comparisons on glyphs100, ResNet-8'
one bic_1993
