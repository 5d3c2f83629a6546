#!/bin/sh
# Training and validation shares of the exemplar memory from 9:1 to 6:4, as in the paper, with 300
# and with 1,000 exemplars. With 9:1 and 8:2 of 300, a later step has no validation image.
set -eu
. "$(dirname "$0")/../experiment.sh"

experiment share_0.4 --dataset=glyphs100 --val_share=0.4
for share in 0.1 0.2 0.3 0.4; do
    experiment "share_${share}_1000" --dataset=glyphs100 --val_share=$share --memory_per_class=10
done
tables logs/glyphs100/bic_1993.log --compare --plot_against=val_share \
    --title='Share of the exemplar memory for the bias correction on glyphs100, ResNet-8' \
    --label='9:1 of 1,000' --label='8:2 of 1,000' --label='7:3 of 1,000' --label='6:4 of 300' \
    --label='6:4 of 1,000' --label='7:3 of 300'  # the last: the default
