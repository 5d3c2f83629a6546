#!/bin/sh
# The paper's ablation on CIFAR-100: 5 steps of 20 classes, at 25 of the paper's 250 epochs. The
# learning rate is divided by 10 after epochs 10, 15 and 20. BiC took 141 minutes, replay + KD
# (baseline2) 169, replay (baseline1) 154 and joint training (upper) 113, each on one of two cores
# while the other one was busy.
set -eu
. "$(dirname "$0")/../experiment.sh"

flags='--dataset=cifar100 --train_epochs=25 --keep_checkpoints'
experiment bic $flags --num_increments=5
experiment baseline2 $flags --num_increments=5 --nobias_correction
experiment baseline1 $flags --num_increments=5 --nobias_correction --nodistillation
experiment upper $flags --num_increments=1
tables --compare --title='The paper'\''s ablation on CIFAR-100, ResNet-32'
one bic
