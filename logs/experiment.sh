# To be sourced by the run.sh of an experiment, in whose folder it leaves logs, figure and tables.
#   experiment NAME FLAG...    one run, gone on with where it was cut off; its log is NAME.log
#   tables ARGUMENT...         results.md and figure.png from the logs there are
# The logs here are of TensorFlow 2.15.1 (PYTHON=.venv-tf2/bin/python) on an x86 processor with
# AVX-512. One thread gives the same figures at every start; on two cores two runs side by side take
# less time than one after the other on two threads.
folder=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$(dirname "$folder")")
python=${PYTHON:-$root/.venv/bin/python}

experiment() {
    name=$1
    shift
    "$python" "$root/imagenet_main.py" --model_dir="$root/logs/runs/$(basename "$folder")/$name" \
        --log_file="$folder/$name.log" --intra_op_threads=1 --inter_op_threads=1 "$@" || exit
}

tables() {
    "$python" "$root/logs/report.py" "$@" --plot "$folder/figure.png" >"$folder/results.md.part" &&
        mv "$folder/results.md.part" "$folder/results.md"
}
