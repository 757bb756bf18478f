#!/bin/bash
# A SLURM of one node on this machine, for the tests marked slurm. Debian or Ubuntu, as root, without systemd:
#   apt-get install munge slurmctld slurmd slurm-client
#   tests/clusters/slurm.sh [folder for its state, /var/tmp/lora-sweep-slurm]
# Two partitions on the same node: jobs of `high` preempt those of `low`, which are queued again.
set -eu
state=${1:-/var/tmp/lora-sweep-slurm}
host=$(hostname -s)
mkdir -p "$state/ctld" "$state/d" /run/munge /etc/slurm
[ -s /etc/munge/munge.key ] || dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none
chown munge:munge /etc/munge/munge.key /run/munge && chmod 400 /etc/munge/munge.key
cat > /etc/slurm/slurm.conf <<END
ClusterName=test
SlurmctldHost=$host
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/d
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=30
NodeName=$host CPUs=$(nproc) RealMemory=4000 State=UNKNOWN
PartitionName=low Nodes=$host Default=YES PriorityTier=1 GraceTime=60 MaxTime=INFINITE
PartitionName=high Nodes=$host PriorityTier=10 MaxTime=INFINITE
END
pgrep -x munged > /dev/null || runuser -u munge -- /usr/sbin/munged
pgrep -x slurmctld > /dev/null || slurmctld
pgrep -x slurmd > /dev/null || slurmd -N "$host"
for _ in $(seq 60); do
    sinfo -h -o %T 2> /dev/null | grep -qx idle && { sinfo; exit 0; }
    sleep 1
done
sinfo || true
echo "SLURM did not come up; see $state/slurmctld.log and $state/slurmd.log" >&2
exit 1
