#!/usr/bin/env bash
# The native code under sanitizers, warnings as errors:
#   tests/native/kernels_test   AddressSanitizer and UndefinedBehaviorSanitizer, by g++ and, where it is there, clang++
#   tests/native/library_test   the same, on strangers' programs and thousands of changes of them
#   tests/native/threads_test   ThreadSanitizer
#   tests/backends, commit ...  the Python tests of the native code, AddressSanitizer and UndefinedBehaviorSanitizer
#
#     .ci/sanitize.sh [PYTHON] [PYTEST ARGUMENT ...]      PYTHON (default .venv/bin/python) has the `dev` extra and cmake
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${1:-.venv/bin/python}")
shift || true
build=$PWD/build/sanitize
tests=("$@")
((${#tests[@]})) || tests=(tests/backends tests/commit tests/program/test_encoding.py --ignore-glob="*/test_vendor.py" --ignore-glob="*/test_bounds.py" --ignore=tests/backends/device) # those are of PyTorch, and of devices
PATH=$(dirname "$python"):$PATH

native() { # build folder, C++ compiler, sanitizer, targets
    local c=${2/%clang++/clang}
    echo "== $1: $2, GV_SANITIZE=$3"
    cmake -S . -B "$build/$1" -G Ninja --log-level=WARNING -DCMAKE_BUILD_TYPE=Release -DGV_WERROR=ON -DGV_CUDA=OFF \
        -DGV_NATIVE_TESTS=ON -DGV_SANITIZE="$3" -DCMAKE_CXX_COMPILER="$2" -DCMAKE_C_COMPILER="${c/%g++/gcc}" \
        -DPython_EXECUTABLE="$python" \
        -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" >/dev/null
    cmake --build "$build/$1" --target "${@:4}"
}
export UBSAN_OPTIONS=print_stacktrace=1

rm -rf "$build/programs"
mkdir -p "$build/programs"
"$python" - tests/vectors/program.json "$build/programs" <<'END'
import json, pathlib, sys
for case in json.load(open(sys.argv[1]))["cases"]:
    pathlib.Path(sys.argv[2], case["name"]).write_bytes(bytes.fromhex(case["bytes"]))
END

native threads g++ thread threads_test
"$build/threads/threads_test"
native gcc g++ ON _native kernels_test library_test
"$build/gcc/kernels_test"
"$build/gcc/library_test" "$build"/programs/*
if command -v clang++ >/dev/null; then
    native clang clang++ ON kernels_test library_test
    "$build/clang/kernels_test"
    "$build/clang/library_test" "$build"/programs/*
else
    echo "== clang++ is not installed: g++ alone"
fi

# The package is a copy with this native build, put on the path of the plain interpreter together with the environment's
# packages: installed in the environment, the hook of the editable install would come first.
echo "== ${tests[*]}"
rm -rf "$build/package"
mkdir -p "$build/package"
cp -rL gensyn_verify "$build/package/"
find "$build/package" \( -name '*.so' -o -name __pycache__ \) -prune -exec rm -rf {} +
cp "$build"/gcc/_native*.so "$build/package/gensyn_verify/"

# The interpreter itself is not instrumented: the runtime has to be there before it, with the library whose exceptions it
# watches, and its own leaks are not ours.
# Its allocator does not survive a fork in the midst of another thread's malloc, so that one test runs without it alone.
forks="tests/backends/test_threads.py::test_a_forked_child_computes_with_threads_of_its_own[forks while threads compute]"
plain=$("$python" -c "import sys; print(sys._base_executable)")
packages=$("$python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")
LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so.6)" ASAN_OPTIONS=detect_leaks=0 \
    PYTHONSAFEPATH=1 PYTHONPATH=$build/package:$packages "$plain" -m pytest -q -n auto -p no:cacheprovider \
    -o pythonpath=tests --deselect "$forks" "${tests[@]}"
