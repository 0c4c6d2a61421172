# SPDX-License-Identifier: LGPL-2.1-or-later
#
# "default", for servers that look at the machine's interfaces and addresses (getifaddrs(3), as dnsmasq and unbound do
# at their start). The kernel tells and, without a capability, changes nothing. Add to it in
# interfaces.profile.d/*.profile, not here.

include default

allow socket arg0 == AF_NETLINK and arg1 & SOCK_TYPE_MASK in {SOCK_RAW, SOCK_DGRAM} and arg2 == NETLINK_ROUTE
