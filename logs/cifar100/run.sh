#!/bin/sh
# The paper's ablation on CIFAR-100, five increments of 20, at a tenth of its length: 25 epochs of
# 250, the rate divided by 10 at 10, 15 and 20. BiC took 141 minutes, baseline-2 169, baseline-1
# 154 and joint training 113, each on one of two cores with other work on the other.
set -eu
. "$(dirname "$0")/../experiment.sh"

for method in bic baseline2 baseline1 upper; do
    case $method in
        bic) flags=--num_increments=5 ;;
        baseline2) flags='--num_increments=5 --nobias_correction' ;;
        baseline1) flags='--num_increments=5 --nobias_correction --nodistillation' ;;
        upper) flags=--num_increments=1 ;;
    esac
    experiment $method --dataset=cifar100 --train_epochs=25 --keep_checkpoints $flags
done
tables --compare --title='The paper'\''s ablation on CIFAR-100, ResNet-32'
one bic
