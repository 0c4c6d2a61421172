// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/link.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <fmt/format.h>

#include "broker/dataplane/kernel/objects.h"

namespace sockbroker {

namespace {

bool ask(int link, bpf_link_info& info) {
        std::uint32_t length = sizeof info;
        return bpf_obj_get_info_by_fd(link, &info, &length) == 0;
}

}  // namespace

Result<OwnedFd> attach(int program) {
        const OwnedFd netns(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
        if (!netns) {
                return fail_errno("cannot open /proc/self/ns/net");
        }
        OwnedFd link(bpf_link_create(program, netns.get(), BPF_SK_LOOKUP, nullptr));
        if (!link) {
                return fail_errno(
                        "cannot attach the dispatch program to this network namespace; at most 64 sk_lookup "
                        "programs fit, and each needs CAP_NET_ADMIN");
        }
        return link;
}

Result<std::uint64_t> netns_of_link(const PinDir& pins, int link) {
        bpf_link_info info{};
        if (!ask(link, info)) {
                return fail_errno(fmt::format("cannot ask what {} is attached to", pins.path_of(kLinkPin)));
        }
        if (info.type != BPF_LINK_TYPE_NETNS) {
                return fail(fmt::format("{} is not a link of sockbroker; point --bpffs at a directory of its own",
                                        pins.path_of(kLinkPin)));
        }
        return info.netns.netns_ino;
}

std::optional<std::uint64_t> attached_netns(int link) {
        bpf_link_info info{};
        return ask(link, info) ? std::optional<std::uint64_t>(info.netns.netns_ino) : std::nullopt;
}

Result<bool> check_link(const PinDir& pins, int link) {
        struct stat here {};
        if (stat("/proc/self/ns/net", &here) != 0) {
                return fail_errno("cannot look at /proc/self/ns/net");
        }
        return check_link(pins, link, here.st_ino);
}

Result<bool> check_link(const PinDir& pins, int link, std::uint64_t netns) {
        const auto found = netns_of_link(pins, link);
        if (!found) {
                return std::unexpected(found.error());
        }
        if (*found != 0 && *found != netns) {
                return fail(
                        fmt::format("{} is attached to another network namespace (inode {}, here {}); each namespace "
                                    "needs a directory of its own: --bpffs",
                                    pins.path_of(kLinkPin), *found, netns));
        }
        return *found != 0;
}

Result<void> take_over_link(const PinDir& pins, int link, int program) {
        const auto attached = check_link(pins, link);
        if (!attached) {
                return std::unexpected(attached.error());
        }
        if (!*attached) {
                auto fresh = attach(program);
                return fresh ? pins.replace(kLinkPin, fresh->get()) : std::unexpected(fresh.error());
        }
        if (bpf_link_update(link, program, nullptr) != 0) {
                return fail_errno(fmt::format("cannot put the new program into {}", pins.path_of(kLinkPin)));
        }
        return {};
}

}  // namespace sockbroker
