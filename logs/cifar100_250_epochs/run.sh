#!/bin/sh
# The paper's main result on CIFAR-100: BiC in 5 steps of 20 classes, with the published settings.
# On two cores with AVX-512, step 4, the only one in a single start, took 2:45 hours.
set -eu
. "$(dirname "$0")/../experiment.sh"

experiment bic --dataset=cifar100 --num_increments=5 --intra_op_threads=0 --inter_op_threads=0
[ "$command" = report ] || "$python" tests/tools/publish_run.py "$runs/bic" "$folder/bic"
report results --title='BiC on CIFAR-100 with the published settings, ResNet-32' \
    --plot="$folder/figure.png" --plot_confusion="$folder/confusion.png" \
    --model_dir="$runs/bic" "$folder/bic.log"
