// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/answers.h"

#include <algorithm>
#include <array>
#include <cerrno>

namespace sockbroker::supervise {

namespace {

struct Heard {
        std::string_view result;
        int errnum;
        std::string_view advice;
};

constexpr std::array kHeard = {
        Heard{"not-permitted", EACCES, "grant it in conf.d, or have only others taken over, as --bind=tcp:PORT"},
        Heard{"unknown-service", EACCES, "--service= names a service of conf.d"},
        Heard{"ambiguous", EACCES, "say which with --service="},
        Heard{"busy", EADDRINUSE, ""},
        Heard{"quota", ENOBUFS, ""},
        Heard{"rate-limited", EAGAIN, ""},
        Heard{"mptcp", EPROTONOSUPPORT, ""},
        Heard{"foreign-netns", EADDRNOTAVAIL,
              "the program runs in a network namespace of its own: let a .socket unit with "
              "FileDescriptorName=SERVICE make the sockets, or ask the broker of that namespace "
              "(sockbrokerd@NETNS.service) "
              "by --runtime-dir=/run/sockbroker/netns/NETNS"},
        Heard{"too-few-descriptors", EAGAIN, ""},
        Heard{"unreachable", EAGAIN, "is sockbrokerd.socket active?"},
};

const Heard* find(std::string_view result) {
        const auto* found = std::ranges::find(kHeard, result, &Heard::result);
        return found == kHeard.end() ? nullptr : found;
}

}  // namespace

int errno_of(std::string_view result) {
        const auto* found = find(result);
        return found == nullptr ? EIO : found->errnum;
}

std::string_view advice(std::string_view result) {
        const auto* found = find(result);
        return found == nullptr ? "" : found->advice;
}

}  // namespace sockbroker::supervise
