// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/attached.h"

#include <bpf/bpf.h>
#include <fcntl.h>

#include <algorithm>
#include <array>

#include "broker/base/owned_fd.h"
#include "broker/dataplane/kernel/objects.h"

namespace sockbroker {

namespace {

constexpr std::size_t kMost = 64;  // MAX_BPF_NETNS_ATTACH_TYPE's programs: netns_bpf_max_progs() in net_namespace.c

std::string name_of(std::uint32_t id) {
        bpf_prog_info info{};
        std::uint32_t length = sizeof info;
        const OwnedFd program(bpf_prog_get_fd_by_id(id));
        if (!program || bpf_obj_get_info_by_fd(program.get(), &info, &length) != 0) {
                return {};
        }
        return info.name;
}

}  // namespace

Result<std::vector<OtherProgram>> other_programs(const std::string& pin_dir) {
        const auto link = open_pinned_link(pin_dir);
        if (!link) {
                return std::unexpected(link.error());
        }
        bpf_link_info info{};
        std::uint32_t length = sizeof info;
        const OwnedFd netns(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
        std::array<std::uint32_t, kMost> ids{};
        std::uint32_t count = kMost;
        std::uint32_t flags = 0;
        if (!netns || bpf_obj_get_info_by_fd(link->get(), &info, &length) != 0 ||
            bpf_prog_query(netns.get(), BPF_SK_LOOKUP, 0, &flags, ids.data(), &count) != 0) {
                return fail_errno("cannot ask which sk_lookup programs are attached");
        }
        const auto end = ids.begin() + std::min<std::ptrdiff_t>(count, kMost);
        const auto ours = std::find(ids.begin(), end, info.prog_id);
        std::vector<OtherProgram> result;
        for (auto at = ids.begin(); at != end; ++at) {
                if (at != ours) {
                        result.push_back({.id = *at, .name = name_of(*at), .before = at < ours});
                }
        }
        return result;
}

}  // namespace sockbroker
