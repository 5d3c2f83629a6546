# To be sourced by the run.sh of an experiment, in whose folder it leaves logs, figures and tables.
#   experiment NAME FLAG...    one run, gone on with where it was cut off; its log, NAME.log, is laid
#                              into the folder at its end
#   tables FLAG...             results.md and figure.png from the logs there are, and others named
#   one NAME                   NAME.md and NAME.png of one run, with its confusion matrices
# Paths given to it are from the project's folder. The logs here are of TensorFlow 2.15.1
# (PYTHON=.venv-tf2/bin/python) on an x86 processor with AVX-512. One thread gives the same figures
# at every start; on two cores two runs side by side take less time than one after the other on two
# threads.
export LC_ALL=C  # the order of *.log
folder=logs/$(basename "$(cd "$(dirname "$0")" && pwd)")
runs=logs/runs/${folder#logs/}
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
"$python" -c 'import matplotlib' 2>/dev/null || {  # now, and not after hours
    echo "error: PYTHON=$python is no Python with matplotlib: make setup" \
        "ARGS=requirements/plot.txt, for another environment with its VENV=..." >&2
    exit 1
}

experiment() {
    name=$1
    shift
    "$python" imagenet_main.py --model_dir="$runs/$name" --log_file="$runs/$name.log" \
        --intra_op_threads=1 --inter_op_threads=1 "$@" || exit
    cp "$runs/$name.log" "$folder/"
}

tables() {
    report results figure "$folder"/*.log "$@"
}

one() {
    report "$1" "$1" "$folder/$1.log" --model_dir="$runs/$1"
}

report() {  # name of the tables, name of the figure, what they are of
    tables=$folder/$1.md figure=$folder/$2.png
    shift 2
    "$python" logs/report.py "$@" --plot "$figure" >"$tables.part" && mv "$tables.part" "$tables"
}
