#!/bin/sh
# Create the virtual environment that the Makefile's targets run in. Returns at once if it is ready.
#   usage: requirements/setup.sh [FILE]...      FILE: further requirements files to install
# Environment variables, all optional: RUNTIME, VENV and PYTHON, as `make help` describes them.
set -u
cd "$(dirname "$0")/.." || exit 1
RUNTIME=${RUNTIME:-} VENV=${VENV:-.venv} PYTHON=${PYTHON:-}
installed=$VENV/installed  # a copy of each file that is installed; `runtime` is written last

say() { echo "set-up: $*"; }
fail() { echo "error: $*" >&2; exit 1; }
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
pip() { "$VENV/bin/python" -m pip --disable-pip-version-check --no-input "$@" </dev/null; }

# fits PYTHON VERSION: it has this version and can create virtual environments.
fits() { [ "$(version_of "$1")" = "$2" ] && "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

# find_python VERSION...: sets `python` and `version`. Skips those that do not run (shims of pyenv).
find_python() {
    for version; do
        [ -z "$PYTHON" ] || { python=$PYTHON; fits "$PYTHON" "$version" && return; continue; }
        IFS=:
        for folder in $PATH "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/$version".*/bin; do
            for python in "$folder/python$version" "$folder/python3" "$folder/python"; do
                fits "$python" "$version" && unset IFS && return
            done
        done
        unset IFS
    done
    return 1
}

# fetch_python VERSION ALTERNATIVES: lets uv install this version, with uv from PyPI if necessary.
fetch_python() {
    [ -z "$PYTHON" ] || fail "$PYTHON is not Python $2 with its venv module. Name one that is."
    say "found no Python $2 with its venv module: trying to install Python $1 with uv"
    version=$1 temporary=$(mktemp -d) && trap 'rm -rf "$temporary"' EXIT || exit 1
    uv=$(command -v uv) || uv=$temporary/venv/bin/uv
    { [ -x "$uv" ] || { python3 -m venv "$temporary/venv" &&
        "${uv%/*}/python" -m pip install -qq uv==0.13.9; }; } &&
        "$uv" python install "$1" && python=$("$uv" python find "$1") ||
        fail "Python $1 could not be installed. Correct the error above, or install Python $2" \
            "with its venv module, or name one with PYTHON=/path/to/python."
}

choose() {  # sets python, version, arch, runtime, files, gpus and why
    why="RUNTIME=$RUNTIME" arch=$(uname -m)
    case $RUNTIME in
        cpu | gpu) find_python 3.7 || fetch_python 3.7 3.7 ;;
        tf2) find_python 3.11 3.10 3.9 || fetch_python 3.11 '3.9 to 3.11' ;;
        tf2-newest) find_python 3.13 3.12 || fetch_python 3.13 '3.12 or 3.13' ;;
        system) python=${PYTHON:-python3} && version=$(version_of "$python") ||
            fail "$python does not run. Name another one with PYTHON=/path/to/python." ;;
        '') reference=3.7 why='the first version found of 3.7, 3.9 to 3.11, 3.12 and 3.13'
            capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null |
                sed -n 's/^\([0-9]*\)\.\([0-9]\)$/\1\2/p' | sort -n | tail -n 1)
            case $arch in aarch64 | arm64) capability=90 ;; esac
            [ "${capability:-0}" -le 75 ] ||  # where CUDA 10.0 ends
                reference='' why='TensorFlow 1.15 does not support this GPU or processor'
            [ "${capability:-0}" -le 90 ] ||  # where CUDA 12.2 and cuDNN 8 end
                { RUNTIME=tf2-newest && choose && why='this GPU needs TensorFlow 2.21' && return; }
            find_python $reference 3.11 3.10 3.9 3.13 3.12 ||
                fetch_python 3.11 "${reference:+$reference or }3.9 to 3.13" ;;
        *) fail "RUNTIME=$RUNTIME is unknown. Choose cpu, gpu, tf2, tf2-newest or system." ;;
    esac
    gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU ')
    [ "$gpus" -eq 0 ] && runtime=cpu || runtime=gpu
    case $version in 3.9 | 3.1[01]) runtime=tf2 ;; 3.1[23]) runtime=tf2-newest ;; esac
    runtime=${RUNTIME:-$runtime}; files=requirements/$runtime.txt
    case $runtime in
        gpu) files=requirements.txt ;;
        tf2*) [ "$gpus" -eq 0 ] || [ "$arch" != x86_64 ] ||  # no CUDA on aarch64
            files="$files requirements/$runtime-gpu.txt" ;;
    esac
}

install() {
    say "installing $1"
    [ "$runtime" = system ] && pins='s/==[^;# ]*//' || pins=  # keeps the system's versions
    sed "$pins" "$1" >"$installed/list" &&
        pip install -qq -c "$installed/system" -r "$installed/list" && cp "$1" "$installed/" ||
        fail "$1 could not be installed. Correct the error above and repeat the command."
}

create() {
    [ ! -e "$VENV" ] || [ -d "$installed" ] ||
        fail "$VENV exists and this script did not create it. Move it away or set VENV=FOLDER."
    choose
    # The interpreter below a virtual environment, because environments come and go.
    python=$("$python" -c 'import sys; print(sys.base_prefix)')/bin/python$version
    say "Python $version at $python, $gpus NVIDIA GPUs: runtime $runtime ($why) into $VENV"
    # `installed` stays throughout, because it marks a folder that may be replaced.
    mkdir -p "$installed" && rm -f "$installed"/* && : >"$installed/system" &&
        find "$VENV" -mindepth 1 -maxdepth 1 ! -name installed -exec rm -rf {} + &&
        if [ "$runtime" = system ]; then
            "$python" -m venv --system-site-packages --without-pip "$VENV" &&
                { pip --version >/dev/null 2>&1 || "$VENV/bin/python" -m ensurepip; } &&
                pip list --format=freeze | grep '==[0-9]' >"$installed/system"
        else
            "$python" -m venv "$VENV" && pip install -qq 'pip>=20.3'  # older ones miss wheels
        fi || fail "$VENV could not be created. Correct the error above and repeat the command."
    for file in $files; do install "$file"; done
    # TensorFlow 2.16 and later need tf-keras. Its dependency is left out: it may be tensorflow-cpu.
    sed -nE 's/^tensorflow(.cpu|.rocm)?==(2\.(1[6-9]|[2-9][0-9])).*/\2/p' "$installed/system" |
        while read -r minor; do pip install -qq --no-deps "tf-keras==$minor.*"; done
    "$VENV/bin/python" -c 'import runtime.environment, runtime.quiet_import, scipy' || exit 1
    echo "$runtime $files" >"$installed/runtime"
}

ready() {
    read -r runtime files 2>/dev/null <"$installed/runtime" || return
    [ "${RUNTIME:-$runtime}" = "$runtime" ] || return
    for file in $files; do cmp -s "$file" "$installed/${file##*/}" || return; done
    current=$(version_of "$VENV/bin/python") &&
        [ "$(version_of "${PYTHON:-$VENV/bin/python}")" = "$current" ]
}

lock=requirements/system.txt; if [ -w $lock ]; then exec 9<>$lock; else exec 9<$lock; fi
flock 9 2>/dev/null  # waits for another set-up here. NFS locks only what is open for writing.
ready || create
for file; do cmp -s "$file" "$installed/${file##*/}" || install "$file"; done
