#!/usr/bin/env bash
# The package on aarch64, emulated: builds the native kernels (NEON and portable) with a cross compiler, runs them under
# qemu-user against the definition and the published vectors, and solves the tasks of tests/machine_task.py and the
# models of tests/models, whose run commitments must equal those of this machine.
#
#     .ci/aarch64.sh [PYTHON]        PYTHON (default .venv/bin/python) has gensyn_verify, cmake, ninja, pybind11 and pip
#
# Needs the Debian packages qemu-user, g++-aarch64-linux-gnu, python3 and a network for the first run. Debian's arm64
# Python and its libraries are fetched by an apt of its own, which writes nothing outside of build/aarch64 and needs no
# root; nothing is installed on this machine. Later runs reuse what is there. Exit status 75 where something is missing
# or cannot be fetched: nothing was tested then.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
build=$root/build/aarch64
python=$(realpath -s "${1:-.venv/bin/python}")
isas=(neon portable)

say() { printf '\n== %s (%s s)\n' "$*" "$SECONDS"; }

for tool in qemu-aarch64 aarch64-linux-gnu-g++ apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || {
        echo "aarch64: $tool is missing; install the Debian packages qemu-user and g++-aarch64-linux-gnu" >&2
        exit 75
    }
done
mkdir -p "$build"

# ---- Debian's Python for arm64, unpacked into a sysroot

# shellcheck disable=SC1091
release=$(. /etc/os-release && echo "$ID-$VERSION_CODENAME")
[[ $release == debian-* ]] || {
    echo "aarch64: this lane takes Python and the C++ library for arm64 from Debian; the system is $release" >&2
    exit 75
}
release=${release#debian-}
sysroot=$build/sysroot-$release

if [[ ! -e $sysroot/.complete ]]; then
    say "fetching Python for Debian $release, arm64"
    rm -rf "$sysroot" "$build/apt"
    mkdir -p "$sysroot" "$build/apt/lists/partial" "$build/apt/archives/partial"
    : >"$build/apt/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $release main" \
        >"$build/apt/sources.list"
    cat >"$build/apt/apt.conf" <<END
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "$(id -un)";
Dir::State "$build/apt";
Dir::State::status "$build/apt/status";
Dir::Cache "$build/apt";
Dir::Etc::sourcelist "$build/apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
END
    export APT_CONFIG=$build/apt/apt.conf
    apt-get -qq update || exit 75
    apt-get -qq -y --download-only install python3-minimal libpython3-dev libstdc++6 >/dev/null || exit 75
    for package in "$build"/apt/archives/*.deb; do dpkg-deb -x "$package" "$sysroot"; done
    touch "$sysroot/.complete"
fi

interpreter=$(compgen -G "$sysroot/usr/bin/python3.[0-9]*" | head -n 1)
version=${interpreter##*/python}

# ---- wheels: NumPy for aarch64, the rest is pure Python

site=$build/site-$version
if [[ ! -e $site/.complete ]]; then
    say "fetching wheels"
    rm -rf "$site"
    "$python" -m pip --disable-pip-version-check install --quiet --target "$site" --only-binary :all: \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
        --implementation cp --python-version "$version" \
        "numpy>=1.26" "fsspec>=2024.2" "tqdm>=4.66" "pytest>=8" "hypothesis>=6.100" || exit 75
    touch "$site/.complete"
fi

# ---- the package: Python files of this tree, and native kernels for aarch64

say "building the kernels"
rm -rf "$build/package"
mkdir -p "$build/package"
cp -rL gensyn_verify "$build/package/"
find "$build/package" \( -name '*.so' -o -name __pycache__ \) -prune -exec rm -rf {} +
PATH=$(dirname "$python"):$PATH
cmake -S . -B "$build/native" -G Ninja --log-level=WARNING \
    -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
    -DCMAKE_CXX_FLAGS="-idirafter $sysroot/usr/include" -DCMAKE_BUILD_TYPE=Release -DGV_WERROR=ON -DGV_CUDA=OFF \
    -DPython_EXECUTABLE="$python" -DPython_INCLUDE_DIR="$sysroot/usr/include/python$version" \
    -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" >/dev/null
cmake --build "$build/native" --target _native
cp "$(find "$build/native" -maxdepth 1 -name '_native*.so')" "$build/package/gensyn_verify/_native.so"

emulated() { # ISA, then a Python command line
    GENSYN_VERIFY_ISA=$1 OPENBLAS_NUM_THREADS=1 PYTHONPATH=$build/package:$site PYTHONDONTWRITEBYTECODE= \
        qemu-aarch64 -L "$sysroot" "$interpreter" "${@:2}"
}

cd "$build"
emulated neon -P -c "
import platform; from gensyn_verify import _native
assert platform.machine() == 'aarch64' and _native.supported_isas() == ['neon', 'portable'], _native.supported_isas()"

# ---- vectors, kernels against the definition, golden bundles and their distances

say "vectors and definition, ${isas[*]}"
emulated neon -P -m pytest -q -p no:cacheprovider -c "$root/pyproject.toml" --rootdir "$root" \
    -o addopts= -o pythonpath=tests \
    "$root"/tests/backends/test_{vectors,threads,dot,reduce,map,gather_random}.py "$root"/tests/protocol/test_golden.py \
    --durations=15 \
    -k "not (agree_on or fork or sizes_beyond or threads_split or random_ or every_pair or rows_are_gathered)"

# ---- the same tasks, the same run commitments

say "run commitments"
rm -rf "$build/tasks"
"$python" "$root/tests/machine_task.py" write "$build/tasks"
wanted=$("$python" "$root/tests/machine_task.py" solve "$build/tasks")
echo "$wanted"
for isa in "${isas[@]}"; do
    found=$(emulated "$isa" -P "$root/tests/machine_task.py" solve "$build/tasks" 1 3)
    echo "$found"
    "$python" - "$isa" "$wanted" "$found" <<'END'
import json, sys
wanted, *found = map(json.loads, "\n".join(sys.argv[2:]).splitlines())
assert [(f["isa"], f["threads"], f["processor"]) for f in found] == [(sys.argv[1], n, "aarch64") for n in (1, 3)]
assert wanted["runs"] and all(f["runs"] == wanted["runs"] for f in found), "the run commitments differ"
END
done
say "aarch64 gives the same run commitments: ${isas[*]}, one thread and three"

# ---- once more without any Python: the C library and the solver of examples/c

aarch64-linux-gnu-gcc -std=c99 -O2 -static -I"$root/csrc" "$root"/examples/c/*.c "$build/native/libgensyn_verify.a" \
    -lstdc++ -lpthread -lm -o "$build/solve"

in_c() { # folder of tasks, what machine_task.py says of their runs, ISA:THREADS ...
    "$python" - "$root/tests" "$build/solve" "$@" <<'END'
import json, os, subprocess, sys, tempfile
from concurrent.futures import ThreadPoolExecutor
tests, solve, folder, wanted, *machines = sys.argv[1:]
sys.path.insert(0, tests)
from machine_task import SALT, SOLVER

def commitment(name, isa, threads):
    who = ["--solver", SOLVER.address.hex(), "--salt", SALT.hex(), "--isa", isa, "--threads", threads]
    with tempfile.TemporaryDirectory() as out:
        command = ["qemu-aarch64", solve, f"{folder}/{name}", f"{out}/run", *who]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]

runs = json.loads(wanted)["runs"]
assert runs, "no task was solved"
jobs = [(name, *machine.split(":")) for name in runs for machine in machines]
with ThreadPoolExecutor(os.cpu_count()) as pool:
    for (name, isa, threads), found in zip(jobs, pool.map(lambda job: commitment(*job), jobs)):
        assert found == runs[name], f"{name}, {isa}, {threads} threads: {found}, expected {runs[name]}"
        print(f"{name:12} {isa:8} {threads} threads  {found}", flush=True)
END
}

say "run commitments in C"
in_c "$build/tasks" "$wanted" neon:2 portable:2
say "aarch64 without Python gives them too"

# ---- the models of tests/models, a few steps each: captured and solved here, solved in C there

say "capturing the models"
rm -rf "$build/models"
(cd "$root" && TRANSFORMERS_VERBOSITY=error HF_HUB_DISABLE_PROGRESS_BARS=1 "$python" -m tests.models.zoo "$build/models")
say "run commitments of the models in C"
wanted=$("$python" "$root/tests/machine_task.py" solve "$build/models" 2)
in_c "$build/models" "$wanted" neon:4 portable:1
say "aarch64 gives the same run commitments of every model: neon with four threads, portable with one"
rm -rf "$build/models"
