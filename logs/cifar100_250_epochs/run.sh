#!/bin/sh
# The paper's main result on CIFAR-100: BiC in 5 steps of 20 classes, with the published settings. On
# two cores with AVX-512, the log estimates 13 hours in all after the second step. The run continues
# from the last checkpoint in the folder bic, in a copy in logs/runs/cifar100_250_epochs. To begin
# with the first step, move both folders away. The run in bic reads a copy of CIFAR-100 with the
# archive's names (train/apple/apple_s_000027.png), so only this copy of the images continues it.
set -eu
. "$(dirname "$0")/../experiment.sh"

if [ "$command" != report ] && [ -e "$folder/bic/experiment.json" ] && [ ! -e "$runs/bic" ]; then
    mkdir -p "$runs/copy"
    cp -r "$folder"/bic* "$runs/copy"
    mv "$runs"/copy/* "$runs"  # bic and bic.log, only if both are complete
    rmdir "$runs/copy"
fi
experiment bic --dataset=cifar100 --num_increments=5 --keep_checkpoints --intra_op_threads=0 \
    --inter_op_threads=0
[ "$command" = report ] || "$python" tests/tools/publish_run.py "$runs/bic" "$folder/bic"
report results --title='The published experiment on CIFAR-100, ResNet-32' \
    --plot="$folder/figure.png" --plot_confusion="$folder/confusion.png" \
    --model_dir="$runs/bic" "$folder/bic.log"
