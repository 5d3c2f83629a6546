#!/bin/sh
# The paper's ablation on CIFAR-100, five steps of 20 classes, at a tenth of its length: 25 of 250
# epochs, with the learning rate divided by 10 at epochs 10, 15 and 20. BiC took 141 minutes,
# replay + KD 169, replay 154 and joint training 113, each on one of two cores with other work on
# the other.
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
