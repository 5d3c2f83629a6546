#!/bin/sh
# 50 classes of Tiny ImageNet at 64x64 pixels, ResNet-18, 5 steps of 10 classes, three training
# seeds on one class order and split. DATA is the unpacked folder tiny-imagenet-200. train.txt and
# val.txt have one line per class: its WordNet id and the numbers of its images. A run takes 49 to
# 60 minutes on one of two cores, with another run on the other.
set -eu
[ "${1:-}" = report ] || DATA=$(cd "$DATA" && pwd)
. "$(dirname "$0")/../experiment.sh"

if [ "$command" != report ]; then
    export DATA
    mkdir -p "$runs/lists"
    awk '{ for (i = 2; i <= NF; i++) printf "%s/train/%s/images/%s_%s.JPEG %d\n",
           ENVIRON["DATA"], $1, $1, $i, NR - 1 }' "$folder/train.txt" >"$runs/lists/train.txt"
    awk '{ for (i = 2; i <= NF; i++) printf "%s/val/images/val_%s.JPEG %d\n",
           ENVIRON["DATA"], $i, NR - 1 }' "$folder/val.txt" >"$runs/lists/val.txt"
fi
for seed in 1993 1 2; do
    experiment "bic_$seed" --dataset=folder --data_dir="$runs/lists" --seed=$seed \
        --num_classes=50 --num_increments=5 --memory_per_class=20 --val_share=0.1 --image_size=64 \
        --resize_range=64,96 --resnet_size=18 --train_epochs=20 --lr_boundaries=6,12,16,18 \
        --batch_size=64 --learning_rate=0.1 --batch_norm_decay=0.9
done
tables --aggregate --reference="$folder/authors_code.csv" \
    --title='BiC on photographs: 50 classes of Tiny ImageNet, ResNet-18, 64x64 pixels'
