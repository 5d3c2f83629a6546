# Functions for the run.sh of an experiment, which sources this file. Results go into its folder.
#   experiment NAME FLAG...    start or resume a run; copy its log to NAME.log after it has finished
#   tables FLAG...             write results.md and figure.png from the logs in the folder and any
#                              others named
#   one NAME                   write NAME.md and NAME.png of one run, with its confusion matrices,
#                              and these alone as NAME_confusion.png
# `run.sh report` trains nothing: it writes tables and figures again, from the logs in the folder and
# the confusion matrices in logs/runs/<experiment>/NAME.
# Paths are relative to the repository. The committed logs were made with TensorFlow 2.15.1
# (PYTHON=.venv-tf2/bin/python). With one thread, a run gives the same results every time.
export LC_ALL=C  # the order of *.log
command=${1:-}
folder=logs/$(basename "$(cd "$(dirname "$0")" && pwd)")
runs=logs/runs/${folder#logs/}
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
"$python" -c 'import logs.plots' 2>/dev/null || {  # fail now, not after hours
    echo "error: PYTHON=$python has no matplotlib 3.4 or later. Run \`make setup" \
        "ARGS=requirements/plot.txt\`, with VENV=... for another environment than .venv." >&2
    exit 1
}

experiment() {
    [ "$command" != report ] || return 0
    name=$1
    shift
    "$python" imagenet_main.py --model_dir="$runs/$name" --log_file="$runs/$name.log" \
        --intra_op_threads=1 --inter_op_threads=1 "$@" || exit
    start="data: $PWD/" awk 'index($0, ENVIRON["start"]) == 1 {
        $0 = "data: " substr($0, length(ENVIRON["start"]) + 1) } { print }' \
        "$runs/$name.log" >"$folder/$name.log"
}

tables() {
    report results --plot="$folder/figure.png" "$folder"/*.log "$@"
}

one() {
    report "$1" --plot="$folder/$1.png" --plot_confusion="$folder/$1_confusion.png" \
        --model_dir="$runs/$1" "$folder/$1.log"
}

report() {  # name of the tables, then arguments of report.py
    written=$folder/$1.md
    shift
    "$python" logs/report.py "$@" >"$written.part" || { rm "$written.part"; return 1; }
    mv "$written.part" "$written"
}
