#!/usr/bin/env bash
# Two versions of PyTorch capture the same models: every model of tests/models, by the one that is installed and by
# another in an environment of its own. Equal program digests mean that a capture does not depend on the version; the
# bundles of either must solve, with the same commitment, beside either. And the other one is a variation of a calibration.
#
#     .ci/torch_versions.sh [PYTHON] [TORCH]     PYTHON (default .venv/bin/python) has gensyn_verify[dev]; TORCH: 2.9.1
#
# The environment, build/torch-TORCH, takes PyTorch from the package index, with whatever that version depends on (some
# gigabytes of CUDA libraries for versions that have no CPU build there), and everything else from PYTHON's environment.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${1:-.venv/bin/python}")
version=${2:-2.9.1}
build=$PWD/build/torch-$version
other=$build/venv/bin/python

if [[ ! -e $build/.complete ]]; then
    echo "installing torch $version into $build; the first time this takes some minutes"
    "$python" -m venv --clear "$build/venv"
    "$other" -m pip --disable-pip-version-check install --quiet "torch==$version"
    "$python" -c "import sysconfig; print(f'import site; site.addsitedir({sysconfig.get_path(\"purelib\")!r})')" \
        >"$("$other" -c "import sysconfig; print(sysconfig.get_path('purelib'))")/zz_base.pth"
    touch "$build/.complete"
fi

export TRANSFORMERS_VERBOSITY=error HF_HUB_DISABLE_PROGRESS_BARS=1 PYTHONWARNINGS=ignore PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
rm -rf "$build/this" "$build/other"
"$python" -m tests.models.zoo "$build/this" >"$build/this.digests"
"$other" -m tests.models.zoo "$build/other" >"$build/other.digests"
for bundles in this other; do
    for by in "$python" "$other"; do
        "$by" tests/machine_task.py solve "$build/$bundles" 2
    done
done >"$build/runs"
rm -rf "$build/this" "$build/other"

GENSYN_VERIFY_OTHER_PYTHON=$other "$python" -m pytest -q tests/protocol/test_calibrate.py -k another_pytorch

"$python" - "$build" "$("$python" -c 'import torch; print(torch.__version__)')" "$("$other" -c 'import torch; print(torch.__version__)')" <<'PYTHON'
import json, pathlib, sys
build, *versions = sys.argv[1:]
digests = [dict(map(str.split, pathlib.Path(build, f"{n}.digests").read_text().splitlines())) for n in ("this", "other")]
this, this_by_other, other, other_by_other = (json.loads(s)["runs"] for s in pathlib.Path(build, "runs").read_text().splitlines())
assert this == this_by_other and other == other_by_other, "a bundle has another commitment beside the other version"
assert digests[0].keys() == digests[1].keys() == this.keys() == other.keys()
for name, digest in digests[0].items():
    program = "same program" if digest == digests[1][name] else "programs differ"
    print(f"{name:12} {program}, {'same run' if this[name] == other[name] else 'runs differ'}")
print(f"captured by torch {versions[0]} and {versions[1]}; every bundle solved beside both")
sys.exit(digests[0] != digests[1] or this != other)
PYTHON
