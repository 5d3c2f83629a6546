# Source this file in the run.sh of an experiment. Logs, figures and tables go into that folder.
#   experiment NAME FLAG...    run or resume one run; its log, NAME.log, is copied when it is finished
#   tables FLAG...             results.md and figure.png of the folder's logs and of others named
#   one NAME                   NAME.md and NAME.png of one run, with its confusion matrices
# Paths are relative to the project's folder. The committed logs were made with TensorFlow 2.15.1
# (PYTHON=.venv-tf2/bin/python) on an x86 processor with AVX-512. With one thread the results are the
# same at every start. On two cores, two runs at the same time take less time than one after the
# other on two threads.
export LC_ALL=C  # the order of *.log
folder=logs/$(basename "$(cd "$(dirname "$0")" && pwd)")
runs=logs/runs/${folder#logs/}
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
"$python" -c 'import matplotlib' 2>/dev/null || {  # now, and not after hours
    echo "error: PYTHON=$python has no matplotlib. Install it with make setup" \
        "ARGS=requirements/plot.txt, and VENV=FOLDER for another environment." >&2
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
