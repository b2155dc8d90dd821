#!/usr/bin/env bash
# What only a GPU can show, in at most 13 minutes: scripts/gpu_session.sh [OUT [PART...]]
#
#   kernels     the tests of the CUDA kernels                                  at most  2 minutes
#   benchmark   scripts/benchmark.py --device cuda                             at most  4 minutes
#   resnet20    experiment=cifar10_resnet20, all 600 epochs, as far as it gets  at most  7 minutes
#
# Without PART all three. Each ends at its time: none takes that of the next. resnet20 saves when its time is up;
# the same command goes on with it, also on another machine to which OUT/run was brought. Without a GPU all parts
# run at tiny sizes on the CPU, which shows that the script works and nothing else.
#
# PYTHON: the interpreter, python3 by default. WHEELS: a folder of packages, for a machine without a network.
# DIFFQ_EXP_DATA: where cifar-10-batches-py lies. OVERRIDES: more of a run's keys, "precision=bf16 compile=true".
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

OUT=${1:-outputs/gpu_session}
shift || true
PARTS=("${@:-kernels benchmark resnet20}")
read -ra PARTS <<<"${PARTS[*]}"
PYTHON=${PYTHON:-python3}
read -ra OVERRIDES <<<"${OVERRIDES:-}"
export PYTHONUNBUFFERED=1 WANDB_MODE=disabled

mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
SUMMARY=$OUT/summary.txt
FAILED=0

say() { echo "$*" | tee -a "$SUMMARY"; }

# part NAME SECONDS COMMAND...: its output goes to OUT/NAME.log; a part that is out of time gets SIGTERM, and saves.
part() {
    local name=$1 seconds=$2 started=$SECONDS code
    shift 2
    timeout --signal=TERM --kill-after=30 "$seconds" "$@" >"$OUT/$name.log" 2>&1
    code=$?
    say "$name: exit code $code after $((SECONDS - started)) s of $seconds; $(tail -n 1 "$OUT/$name.log")"
    [[ $code == 0 || ($code == 124 && $name == resnet20) ]] || FAILED=1
}

kernels() {
    local tests=(tests/quant/kernels)
    [[ $GPU == yes ]] || tests=(tests/quant/kernels/test_dispatch.py)
    part kernels 120 "$PYTHON" -m pytest -q -n 0 -p no:cacheprovider "${tests[@]}"
}

benchmark() {
    local options=(--device cuda)
    [[ $GPU == yes ]] || options=(--device cpu --quick --only evaluation)
    part benchmark 240 "$PYTHON" scripts/benchmark.py "${options[@]}" --out "$OUT/benchmark"
}

resnet20() {
    local words=(experiment=cifar10_resnet20 "hydra.run.dir=$OUT/run" tracking=none "${OVERRIDES[@]}")
    if [[ $GPU == yes ]]; then
        words+=(device=cuda checkpoint_minutes=1)
    else
        words=(experiment=quick model=resnet20 epochs=1 device=cpu "hydra.run.dir=$OUT/run" tracking=none)
    fi
    part resnet20 400 "$PYTHON" -m diffq_exp.train "${words[@]}"
    cp "$OUT/run/result.json" "$OUT/resnet20.json" 2>/dev/null || true
    tail -n 1 "$OUT/run/metrics.jsonl" >"$OUT/resnet20_last_epoch.json" 2>/dev/null || true
}

if [[ -n ${WHEELS:-} ]]; then
    "$PYTHON" -m pip install --quiet --no-index --find-links "$WHEELS" hydra-core omegaconf numba constriction \
        safetensors filelock rich pebble cloudpickle pytest pytest-timeout pytest-xdist scikit-learn 2>&1 | tail -n 3
fi
GPU=$("$PYTHON" -c 'import torch; print("yes" if torch.cuda.is_available() else "no")' 2>/dev/null) || GPU=no
say "$(date -u +%FT%TZ) GPU: $GPU; $("$PYTHON" -c 'import torch; print("torch", torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU: a dry run")')"
for name in "${PARTS[@]}"; do
    case $name in
        kernels | benchmark | resnet20) "$name" ;;
        *)
            say "error: $name is no part; there are kernels, benchmark and resnet20"
            exit 2
            ;;
    esac
done
exit $FAILED
