#!/usr/bin/env bash
# The native kernels under AddressSanitizer and UndefinedBehaviorSanitizer, on the backend's and the commitments' tests.
#
#     .ci/sanitize.sh [PYTHON] [PYTEST ARGUMENT ...]      PYTHON (default .venv/bin/python) has the `dev` extra and cmake
#
# The package is a copy with a native build of its own, put on the path of the plain interpreter together with the
# environment's packages: installed in the environment, the hook of the editable install would come first.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${1:-.venv/bin/python}")
shift || true
build=$PWD/build/sanitize
tests=("${@:-tests/backends tests/commit}")

rm -rf "$build/package"
mkdir -p "$build/package"
cp -r gensyn_verify "$build/package/"
find "$build/package" \( -name '*.so' -o -name __pycache__ \) -prune -exec rm -rf {} +
PATH=$(dirname "$python"):$PATH
cmake -S . -B "$build/native" -G Ninja -Wno-dev --log-level=WARNING -DCMAKE_BUILD_TYPE=Release -DGV_SANITIZE=ON \
    -DPython_EXECUTABLE="$python" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" >/dev/null
cmake --build "$build/native" --target _native
cp "$build"/native/_native*.so "$build/package/gensyn_verify/"

# The interpreter itself is not instrumented: the runtime has to be there before it, and its own leaks are not ours.
plain=$("$python" -c "import sys; print(sys._base_executable)")
packages=$("$python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")
# shellcheck disable=SC2068
LD_PRELOAD=$("${CXX:-c++}" -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
    PYTHONPATH=$build/package:$packages "$plain" -P -m pytest -q -n auto -p no:cacheprovider ${tests[@]}
