# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Makes the units for the broker of a named network namespace, sockbrokerd@NETNS.service and .socket, from those of the
# machine's own broker, so that every line that is added there is here too. All paths become those of --netns=.
/^# SPDX/a\
#\
# For the network namespace that is named after the "@", see ip-netns(8). Order this unit after the one that makes the\
# namespace. What follows is generated from the unit of the same name without "@".
s|^Description=Socket Broker.*|& of Network Namespace %i|
s/^\(Requires\|After\|PartOf\)=sockbrokerd\.socket$/\1=sockbrokerd@%i.socket/
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
s|^\(InaccessiblePaths=.*\) -/var/lib/sockbroker/netns$|\1 -/run/sockbroker/routes -/run/sockbroker/links|
/^TemporaryFileSystem=/a\
BindReadOnlyPaths=/run/sockbroker/netns/%i
s|^Listen\([A-Za-z]*\)=/run/sockbroker/|&netns/%i/|
/^# In the network namespace that the broker serves\.$/a\
NetworkNamespacePath=/run/netns/%i
/^# Nobody else has this user/i\
# PID 1 makes the socket in its own network namespace, which does not matter for a UNIX socket. The capability applies\
# in every network namespace of the machine; the filter of the program keeps it to this one.\
NetworkNamespacePath=/run/netns/%i\


