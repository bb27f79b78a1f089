#!/usr/bin/env bash
# One training over several machines, started by hand on each of them:
#
#     HEAD=10.0.0.1 RUN=/shared/runs/first bash torchrun_two_nodes.sh model=yolo26n data=/shared/my.yaml batch=64
#
# All machines need the same options, the same data under the same path, and the folder RUN on a disk that they share.
# What is set from outside:
#
#     HEAD      address of the first machine, by which all others reach it
#     RUN       folder of the run; where it holds a last.pt, the run goes on from there
#     NODES     how many machines (2)
#     PER_NODE  processes on each, one for each GPU (gpu: as many as there are)
#     PORT      where they meet on HEAD (29500). torchrun listens there on all addresses and trusts whoever connects:
#               let a firewall keep everyone but these machines from it, see docs/trainer.md
#     ADDRESS   of this machine, if its name does not lead to it
#     NETWORK   device of the private network, such as eth1: what gloo and NCCL open is opened there alone
set -euo pipefail

: "${HEAD:?is the address of the first machine}" "${RUN:?is the folder of the run}"
if [ -n "${NETWORK:-}" ]; then
    export GLOO_SOCKET_IFNAME="$NETWORK" NCCL_SOCKET_IFNAME="$NETWORK"
fi

# A run that was stopped, or whose machine was lost, goes on exactly where it was; the same command starts and continues.
set -- resume=auto save_dir="$RUN" "$@"

exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NODES:-2}" --nproc-per-node="${PER_NODE:-gpu}" \
    --rdzv-backend=c10d --rdzv-endpoint="$HEAD:${PORT:-29500}" --rdzv-id="$(basename "$RUN")" \
    ${ADDRESS:+--local-addr="$ADDRESS"} \
    -m eyas train "$@"
