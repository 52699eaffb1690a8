#!/bin/bash
# install.sh GROUP...: what a make target needs from Debian, on a fresh machine with only git, make and python3, as root.
# Each line is shown before it runs; where everything is there, nothing runs and nothing is said.
#   venv   Python's own venv, where `python3 -m venv` does not work yet
#   lab    the engine and the tools that the lab's nodes run
#   beside  what weft is tried beside and looked at with; not for a demo, which runs on other people's machines
#   root   what makes a folder with another suite's engine
#   plugin what makes the plugin's base image, lets a build reach Debian and PyPI, and serves as its registry
#   vm     what makes the disk of virtual machines, and what they run in
set -euo pipefail

policy=/usr/sbin/policy-rc.d

show() {
  printf '+ %s\n' "$*"
  "$@" </dev/null
}

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

packages() {
  case $1 in
  venv) python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv ;;
  lab) echo ca-certificates libnftables1 nftables iptables iproute2 docker.io docker-compose ;;
  beside) echo conntrack dbus firewalld openvswitch-switch ufw ;;
  root) echo debootstrap debian-archive-keyring ;;
  plugin) echo debootstrap debian-archive-keyring docker-registry slirp4netns ;;
  vm) echo debootstrap debian-archive-keyring e2fsprogs qemu-system-x86 qemu-utils ;;
  *) echo "install.sh: no group is called $1" >&2; return 2 ;;
  esac
}

missing=()
for group in "$@"; do
  wanted=$(packages "$group")
  for package in $wanted; do
    installed "$package" || missing+=("$package")
  done
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
  echo "These are needed and not installed: ${missing[*]}. Run this as root, or install them first." >&2
  exit 1
fi

# docker.io must not start an engine on this machine: the lab's run in nodes. A policy that is there already is the operator's.
if [ ! -e $policy ]; then
  trap 'rm -f $policy' EXIT
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod 755 $policy
fi

export DEBIAN_FRONTEND=noninteractive
update=(apt-get -q update)
# --no-remove: where another packaging of Docker is installed, say so instead of replacing it
install=(apt-get -q install -y --no-install-recommends --no-remove "${missing[@]}")
ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 || show "${update[@]}"
show "${install[@]}" || { show "${update[@]}" && show "${install[@]}"; }   # the lists may be older than the mirror

# nor may a firewall that only the lab's nodes need rule this machine from its next boot on
for unit in firewalld ufw; do
  case " ${missing[*]} " in *" $unit "*) ! command -v systemctl >/dev/null || show systemctl --quiet disable "$unit" ;; esac
done
