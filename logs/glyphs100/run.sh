#!/bin/sh
# The paper's comparisons on glyphs100: three training seeds on one class order and split.
# Two cores: about six minutes a run with the default flags, the upper bound about three.
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
# Shares for stage 2 of 9:1 to 6:4. Of 500 exemplars 9:1 would leave none for it from step 7 on.
for share in 0.3 0.4; do  # beside bic_1993, which has 8:2
    experiment "share_$share" --dataset=glyphs100 --val_share=$share
done
for share in 0.1 0.2 0.3 0.4; do
    experiment "share_${share}_1000" --dataset=glyphs100 --val_share=$share --memory_per_class=10
done
tables --compare
one bic_1993
