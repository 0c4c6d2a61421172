# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Makes the units of the broker of a named network namespace, sockbrokerd@NETNS.service and .socket, of those of the
# machine's own, so that a line that is added or hardened there is so here. All places become those of --netns=.
/^# SPDX/a\
#\
# For the network namespace of the name that stands after the "@", as ip-netns(8) makes it. Order whatever makes it\
# before this unit. What follows is made of the unit of the same name without "@".
s|^Description=Socket Broker.*|& of Network Namespace %i|
s/^\(Requires\|After\)=sockbrokerd\.socket$/\1=sockbrokerd@%i.socket/
s/ sockbroker-routes\.socket$/ sockbroker-routes@%i.socket/
s/^\(Wants\|After\)=sockbrokerd-\(load\|links\)\.\(service\|socket\)$/\1=sockbrokerd-\2@%i.\3/
s/ sockbrokerd-links\.socket$/ sockbrokerd-links@%i.socket/
s/^Service=sockbrokerd\.service$/Service=sockbrokerd@%i.service/
s|^Also=sockbrokerd\.socket$|Also=sockbrokerd@%i.socket|
s/^WantedBy=sockbrokerd\.service$/WantedBy=sockbrokerd@%i.service/
s|^ExecStart=/usr/lib/sockbroker/sockbroker[a-z -]*$|& --netns=%i|
s|^ExecReload=+/usr/bin/sockbrokerctl reload$|ExecReload=+/usr/bin/sockbrokerctl --netns=%i reload|
s|^StateDirectory=sockbroker$|&/netns/%i|
/^ExecStartPre=/s|bpf/dispatch$|bpf/netns/%i/dispatch|
/^ReadWritePaths=/s|bpf/dispatch$|bpf/netns/%i/dispatch|
s|^\(InaccessiblePaths=-/run/sockbroker/bpf/\)netns|\1dispatch|
s|^\(InaccessiblePaths=.*\) -/var/lib/sockbroker/netns$|\1|
s|^Listen\([A-Za-z]*\)=/run/sockbroker/|&netns/%i/|
/^# In the network namespace that the broker serves\.$/a\
NetworkNamespacePath=/run/netns/%i
/^# Nobody else has this user/i\
# The socket is a file, which knows no network namespace: PID 1 makes it in its own. The capability counts in every\
# namespace below the one of the machine; the filter of the program is what keeps it to this one.\
NetworkNamespacePath=/run/netns/%i\


