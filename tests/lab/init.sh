#!/bin/bash
# init.sh NAME DISK ROOT: PID 1 of a lab node; runs in the node's own net, mount, pid, uts and ipc namespaces.
# Moves into the node's file system, then sits on its standard input: when the session that holds the other end is
# gone, for whatever reason, the node goes off. It reaps orphans (bash does, in its SIGCHLD handler).
set -euo pipefail
name=$1 disk=$2 root=${3%/}

echo "$name" >/proc/sys/kernel/hostname
mkdir -p "$disk"/cgroup
[ -z "$root" ] || mount --bind "$root" "$root"           # pivot_root wants a mount
mount --rbind /sys/fs/cgroup "$disk/cgroup"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"                         # a /sys of this netns ...
mount --rbind "$disk/cgroup" "$root/sys/fs/cgroup"       # ... and the cgroup hierarchies again
[ -z "$root" ] || mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir -p "$root/run/lock"

for place in /etc /opt /var/lib; do                      # what the node writes there goes to its own disk
  layer=$disk/overlay$place
  mkdir -p "$layer/upper" "$layer/work"
  mount -t overlay -o "lowerdir=$root$place,upperdir=$layer/upper,workdir=$layer/work" overlay "$root$place"
done
for place in /etc/docker /var/lib/docker /var/lib/containerd /var/lib/weft; do   # and these start empty;
  mkdir -p "$disk$place" "$root$place"                   # overlay2 wants a real file system below /var/lib/docker
  mount --bind "$disk$place" "$root$place"
done

if [ -n "$root" ]; then                                  # not chroot: `docker exec` would land in the machine's own root,
  cd "$root"                                             # setns(CLONE_NEWNS) goes to the root of the mount namespace
  pivot_root . .
  umount -l .
  cd /
fi
echo up >/run/node-up
while read -r _; do :; done
