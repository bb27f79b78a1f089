#!/bin/sh
# All figures of a GPU in one call of at most seven minutes; see gpu.py.
#     benchmarks/gpu.sh [--small] [out=FILE] [OPTION=VALUE ...]
# PYTHON names another interpreter than `python`.
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
PYTHONPATH="$here/../src${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" -u "$here/gpu.py" "$@"
