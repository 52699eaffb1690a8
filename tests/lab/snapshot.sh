# snapshot.sh: everything that snapshot.py wants to know, in one go. Runs inside the node; parts end with a record separator.
part() { printf '\036\n'; }
knob() { for file in "$@"; do [ ! -e "$file" ] || printf '%s = %s\n' "${file#/proc/sys/}" "$(cat "$file")"; done; }
ip -json -details address
part
for family in -4 -6; do ip $family route show table main | sed "s/^/$family /"; done
part
nft --stateless list ruleset 2>/dev/null
part
iptables-save 2>/dev/null
part
ip6tables-save 2>/dev/null
part
knob /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding   # all/forwarding writes every link's own
knob /proc/sys/net/ipv6/conf/*/force_forwarding /proc/sys/net/ipv6/conf/*/accept_ra /proc/sys/net/ipv4/conf/*/route_localnet
