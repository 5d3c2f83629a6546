#!/bin/sh
# Training and validation shares of the exemplar memory from 9:1 to 6:4, as in the paper, with 500
# and with 1,000 exemplars. With 9:1 of 500, no validation image is left from step 7 on. A run takes
# six to nine minutes on one of two cores, with another run on the other.
set -eu
. "$(dirname "$0")/../experiment.sh"

for share in 0.3 0.4; do
    experiment "share_$share" --dataset=glyphs100 --val_share=$share
done
for share in 0.1 0.2 0.3 0.4; do
    experiment "share_${share}_1000" --dataset=glyphs100 --val_share=$share --memory_per_class=10
done
tables logs/glyphs100/bic_1993.log --compare --plot_against=val_share \
    --title='Share of the exemplar memory for the bias correction on glyphs100, ResNet-8' \
    --label='9:1 of 1,000' --label='8:2 of 1,000' --label='7:3 of 500' --label='7:3 of 1,000' \
    --label='6:4 of 500' --label='6:4 of 1,000' --label='8:2 of 500'  # the last: the default
