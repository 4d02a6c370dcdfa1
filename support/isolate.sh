#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Run a command where it can see no other process, no network and none of this machine's files but the named ones.
#
#   isolate.sh --probe
#   isolate.sh --root DIR --out DIR --tmp DIR [--read PATH | --read-as PATH TARGET]... -- COMMAND...
#
# Linux namespaces, for machines without Docker. The new root is an empty tmpfs in DIR, into which the named paths are bound
# read-only; --out becomes /gate/out and --tmp becomes /tmp, the only places that can be written. No capability
# is left, so nothing of this can be undone from inside, and no setuid program (sudo) gains rights.
set -euo pipefail

readonly namespaces=(unshare --user --map-root-user --mount --pid --fork --kill-child --net --ipc --uts --cgroup)
# A second user namespace, in which the command is an ordinary user: it owns none of the mounts, and `gate check` can
# still make namespaces for its worker (the kernel lets nobody map a namespace's root without CAP_SETFCAP).
user=$(id -u)
[[ ${1:-} != --enter ]] || user=$2 # inside, everybody is root
((user)) || user=65534
readonly ordinary=(unshare --user "--map-user=${user}" "--map-group=${user}" --keep-caps --)
readonly powerless=(setpriv --no-new-privs --ambient-caps=-all --inh-caps=-all --bounding-set=-all --)

# Second half, inside the namespaces: make the root, enter it, give up every right.
enter() {
  local root=$1 out=$2 tmp=$3
  shift 3
  mount -t tmpfs -o mode=0755,size=16m tmpfs "${root}"
  bind "${tmp}" "${root}/tmp" rw
  while [[ $1 != -- ]]; do
    bind "$1" "${root}$2" ro
    shift 2
  done
  shift
  bind "${out}" "${root}/gate/out" rw
  mkdir -p "${root}/proc" "${root}/dev/shm"
  mount -t proc -o nosuid,nodev,noexec proc "${root}/proc"
  mount -t tmpfs -o mode=1777 tmpfs "${root}/dev/shm"
  local device
  for device in null zero full random urandom; do
    touch "${root}/dev/${device}"
    mount --bind "/dev/${device}" "${root}/dev/${device}"
  done
  mount -o remount,bind,ro "${root}"
  cd "${root}"
  pivot_root . tmp
  exec chroot . /bin/bash -c 'umount -l /tmp && cd /gate/source && exec "$@"' isolate "${ordinary[@]}" "${powerless[@]}" "$@"
}

# bind FROM TO ro|rw
bind() {
  if [[ -d $1 ]]; then mkdir -p "$2"; else
    mkdir -p "$(dirname "$2")"
    touch "$2"
  fi
  mount --bind "$1" "$2"
  mount -o "remount,bind,$3,nosuid,nodev" "$2"
}

main() {
  local root='' out='' tmp='' paths=()
  while (($#)); do
    case $1 in
      --probe) exec "${namespaces[@]}" -- "${ordinary[@]}" "${powerless[@]}" true ;;
      --root) root=$2; shift 2 ;;
      --out) out=$2; shift 2 ;;
      --tmp) tmp=$2; shift 2 ;;
      --read) paths+=("$2" "$2"); shift 2 ;;
      --read-as) paths+=("$2" "$3"); shift 3 ;;
      --) shift; break ;;
      *) echo "isolate.sh: unknown argument $1" >&2; exit 2 ;;
    esac
  done
  exec "${namespaces[@]}" -- "${BASH_SOURCE[0]}" --enter "${user}" "${root}" "${out}" "${tmp}" "${paths[@]}" -- "$@"
}

if [[ ${1:-} == --enter ]]; then
  shift 2
  enter "$@"
fi
main "$@"
