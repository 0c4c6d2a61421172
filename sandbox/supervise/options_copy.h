// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the program has set on its socket before it bound it, onto the one that takes its place.
#pragma once

namespace sockbroker::supervise {

// Options that a server sets before bind(2), where they differ, and O_NONBLOCK; `shared`: another bind was given the
// same open file, whose flags it may only make non-blocking. Not what belongs to an address or to the group
// (SO_REUSEADDR, SO_REUSEPORT, IPV6_V6ONLY, FREEBIND: the other is bound already). An option that the kernel refuses is
// left as it is. Lost in any case: membership in multicast groups, filters, epoll registrations and duplicates made
// before.
void copy_options(int from, int to, bool shared);

}  // namespace sockbroker::supervise
