#!/usr/bin/env bash
# Uploads to W&B what runs and reports left offline: wandb_sync.sh [OUTPUTS]   (by default: outputs)
#
# Of each `wandb` folder only the last segment, offline-run-<time>-<id>, which began with all rows of those before.
# Left out are those uploaded already (wandb puts a *.synced file beside the data), runs still at work, and what
# restart=true put aside. Whether an upload succeeded is seen from that file: `wandb sync` may fail with exit code 0.
# It tries for a server that does not answer for hours; Ctrl-C ends it, and the same call goes on from there.
#
# Exit code: 0, also with nothing to do; 1 if something failed, which is listed at the end; 2 for a wrong call.
set -euo pipefail

main() {
    local root=${1:-outputs} segment todo=() failed=()
    [[ $# -le 1 && -d $root ]] || give_up "usage: $(basename "$0") [OUTPUTS]; '$*' is no folder"
    trap 'exit 130' INT # else bash goes on with the next when wandb handles Ctrl-C itself
    PATH=$PATH:$(dirname "$0")/../.venv/bin
    command -v wandb >/dev/null || give_up "there is no wandb on PATH"

    while IFS= read -r -d '' segment; do
        if is_synced "$segment"; then continue; fi
        if is_at_work "$segment"; then
            echo "left for later, still at work: $segment"
            continue
        fi
        todo+=("$segment")
    done < <(last_segments "$root")

    for segment in ${todo[@]+"${todo[@]}"}; do
        env -u WANDB_MODE wandb sync "$segment" </dev/null || true
        is_synced "$segment" || failed+=("$segment")
    done

    if ((${#todo[@]} == 0)); then
        echo "nothing to upload in $root"
    else
        echo "uploaded: $((${#todo[@]} - ${#failed[@]})) of ${#todo[@]}"
    fi
    if ((${#failed[@]} > 0)); then
        printf 'not uploaded: %s\n' "${failed[@]}" >&2
        exit 1
    fi
}

give_up() {
    echo "wandb_sync: $*" >&2
    exit 2
}

# The last of each folder, by the time in its name; ends of records are NUL.
last_segments() {
    local segment last=
    while IFS= read -r -d '' segment; do
        if [[ -n $last && $(dirname "$segment") != "$(dirname "$last")" ]]; then printf '%s\0' "$last"; fi
        last=$segment
    done < <(find "$1" -name .earlier -prune -o -type d -path '*/wandb/offline-run-*' -prune -print0 | LC_ALL=C sort -z)
    if [[ -n $last ]]; then printf '%s\0' "$last"; fi
}

is_synced() { compgen -G "$(quote "$1")/*.wandb.synced" >/dev/null; }

# Whether somebody holds the lock of the run, <run>/wandb/<segment>.
is_at_work() {
    local lock
    lock=$(dirname "$(dirname "$1")")/.lock
    [[ -e $lock ]] && command -v flock >/dev/null && ! flock --nonblock "$lock" true
}

# A path as a pattern that means itself.
quote() { printf '%s' "$1" | sed 's/[][*?\\]/\\&/g'; }

main "$@"
