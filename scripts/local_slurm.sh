#!/usr/bin/env bash
# A Slurm of one node on this machine's loopback, for tests: start | stop | status
#
#   eval "$(scripts/local_slurm.sh start)"      starts it, and exports the SLURM_CONF that sbatch and squeue need
#   scripts/local_slurm.sh stop                 ends its jobs and its three daemons, and nothing else
#
# Needs root and Debian's packages slurm-wlm and munge. All it writes lies in LOCAL_SLURM_DIR, by default
# ${TMPDIR:-/tmp}/local_slurm; nothing of /etc is read or changed. The partition is called `local`.
#
# The daemons see a host called localhost (a UTS namespace): it is where Slurm finds the address to listen on,
# so that nobody outside can reach them, whatever name and addresses the machine has. What jobs use is neither
# limited nor counted, so no cgroups, no database: `sacct` knows nothing here.
set -euo pipefail

DIR=${LOCAL_SLURM_DIR:-${TMPDIR:-/tmp}/local_slurm}
CONF=$DIR/slurm.conf
SOCKET=$DIR/munge/socket
PATH=$PATH:/usr/sbin:/sbin
export SLURM_CONF=$CONF

fail() {
    echo "local_slurm: $*" >&2
    exit 1
}

# The process id in a daemon's file, if that process is ours: its command line names our folder.
pid_of() {
    local pid
    pid=$(cat "$DIR/$1" 2>/dev/null) && [[ -n $pid ]] || return 1
    tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$DIR/" && echo "$pid"
}

SLURMCTLD=run/slurmctld.pid SLURMD=run/slurmd.pid MUNGED=munge/munged.pid

running() { pid_of $SLURMCTLD >/dev/null && pid_of $SLURMD >/dev/null && pid_of $MUNGED >/dev/null; }

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < until)) || return 1
        sleep 0.2
    done
}

free_port() {
    local port
    while true; do
        port=$((20000 + RANDOM % 10000))
        (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

node_is() { [[ $(sinfo --noheader --format %T 2>/dev/null) == "$1" ]]; }
queue_is_empty() { [[ -z $(squeue --noheader 2>/dev/null) ]]; }
gone() { ! kill -0 "$1" 2>/dev/null; }

check_machine() {
    ((EUID == 0)) || fail "needs root: slurmd starts jobs as their users, munged runs as the user munge"
    [[ $DIR == /* ]] || fail "LOCAL_SLURM_DIR is '$DIR'; it has to be an absolute path"
    [[ $DIR != *[[:space:]]* ]] || fail "LOCAL_SLURM_DIR is '$DIR'; Slurm takes no path with spaces"
    [[ ! -e $DIR || (-O $DIR && ! -L $DIR) ]] || fail "$DIR is not a folder of root's; set LOCAL_SLURM_DIR"
    local command
    for command in slurmctld slurmd sbatch munged; do
        command -v $command >/dev/null || fail "$command is missing: apt-get install slurm-wlm munge"
    done
    id munge >/dev/null 2>&1 || fail "the user munge is missing: apt-get install munge"
    unshare --uts true 2>/dev/null || fail "no UTS namespace can be made here: a container needs CAP_SYS_ADMIN"
}

write_conf() {
    local cpus memory_mb
    cpus=$(getconf _NPROCESSORS_ONLN)
    memory_mb=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
    cat >"$CONF" <<CONF
ClusterName=local
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
AuthType=auth/munge
# cred_expire: also the seconds that a requeued job has to wait, 120 if nothing is said
AuthInfo=socket=$SOCKET,cred_expire=5
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool
SlurmctldPidFile=$DIR/$SLURMCTLD
SlurmdPidFile=$DIR/$SLURMD
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.log
PlugStackConfig=$DIR/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
NodeName=localhost NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory_mb State=UNKNOWN
PartitionName=local Nodes=localhost Default=YES MaxTime=INFINITE State=UP
CONF
    : >"$DIR/plugstack.conf"
}

start() {
    check_machine
    if ! running; then
        stop
        mkdir -p "$DIR"
        rm -rf "${DIR:?}"/{state,spool,run,log,munge}
        mkdir "$DIR"/{state,spool,run,log,munge}
        chmod 755 "$DIR"
        head -c 128 /dev/urandom >"$DIR/munge/key"
        chmod 600 "$DIR/munge/key"
        chown -R munge: "$DIR/munge"
        write_conf
        start_daemons >"$DIR/log/start.log" 2>&1 || give_up "a daemon does not start"
        wait_for 30 node_is idle || give_up "the node is not idle after 30 s"
    fi
    printf 'export SLURM_CONF=%q\n' "$CONF"
}

start_daemons() {
    local munge=$DIR/munge
    setpriv --reuid=munge --regid=munge --clear-groups munged --socket="$SOCKET" --key-file="$munge/key" \
        --pid-file="$DIR/$MUNGED" --log-file="$munge/log" --seed-file="$munge/seed" &&
        as_localhost slurmctld -f "$CONF" && as_localhost slurmd -f "$CONF"
}

# shellcheck disable=SC2016  # the inner shell expands "$@"
as_localhost() { unshare --uts bash -c 'hostname localhost && exec "$@"' bash "$@"; }

give_up() {
    cat "$DIR/log/start.log" >&2
    stop
    fail "$1; the logs are in $DIR/log"
}

stop() {
    if running && ! queue_is_empty; then
        squeue --noheader --format %A | sort -u | xargs scancel || true
        wait_for 30 queue_is_empty || echo "local_slurm: jobs are left over: $(squeue --noheader)" >&2
    fi
    local file pid
    for file in $SLURMD $SLURMCTLD $MUNGED; do
        pid=$(pid_of "$file") || continue
        kill "$pid"
        wait_for 15 gone "$pid" || kill -KILL "$pid" || true
    done
}

status() {
    running || fail "not running (in $DIR)"
    sinfo
    squeue
}

case ${1:-} in
    start | stop | status) "$1" ;;
    *) fail "usage: $(basename "$0") start|stop|status" ;;
esac
