#!/bin/sh
# Sets up what is missing, builds, and boots VMs under the hypervisor in QEMU:
#     ./run-qemu.sh [--manifest FILE] [--cpu max|neoverse-n2] [--smp N] [--mem SIZE] [--icount]
#                   [--gdb] [--opt KEY=VALUE] [-- QEMU ARGS]
# The status is that of the hypervisor's last line, `tagvisor: result: pass|fail REASON`.
set -eu
cd -- "$(dirname -- "$0")"
. scripts/toolchain.sh
exec cargo xtask boot "$@"
