// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/base/interface_index.h"

#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

namespace sockbroker {

namespace {

using Known = std::map<std::string, std::uint32_t>;

// Of another network namespace than that of the process; its answers are read by whoever has asked.
struct Elsewhere {
        OwnedFd netlink;
        std::optional<Known> kept;  // in its place
        std::mutex mutex;
        std::uint32_t last = 0;  // number of the last question
};

Elsewhere& elsewhere() {
        static Elsewhere one;
        return one;
}

void add_link(const nlmsghdr* message, Known& known) {
        if (message->nlmsg_type != RTM_NEWLINK || mnl_nlmsg_get_payload_len(message) < sizeof(ifinfomsg)) {
                return;
        }
        const auto* head = static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(message));
        std::pair<Known*, std::uint32_t> found{&known, static_cast<std::uint32_t>(head->ifi_index)};
        mnl_attr_parse(
                message, sizeof(ifinfomsg),
                [](const nlattr* attribute, void* data) {
                        auto& [names, index] = *static_cast<decltype(found)*>(data);
                        if (mnl_attr_get_type(attribute) == IFLA_IFNAME &&
                            mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) == 0) {
                                names->emplace(mnl_attr_get_str(attribute), index);
                        }
                        return MNL_CB_OK;
                },
                &found);
}

enum class Dump : std::uint8_t { kWhole, kAgain, kFailed };

Dump dump_links(Elsewhere& from, Known& known) {
        alignas(nlmsghdr) std::array<char, 32768> buffer{};
        auto* request = mnl_nlmsg_put_header(buffer.data());
        request->nlmsg_type = RTM_GETLINK;
        request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
        request->nlmsg_seq = ++from.last;
        mnl_nlmsg_put_extra_header(request, sizeof(ifinfomsg));
        if (send(from.netlink.get(), request, request->nlmsg_len, 0) < 0) {
                return Dump::kFailed;
        }
        bool interrupted = false;
        while (true) {
                // One at a time asks, so the lock is held. NOLINTNEXTLINE(clang-analyzer-unix.BlockInCriticalSection)
                const ssize_t size = recv(from.netlink.get(), buffer.data(), buffer.size(), 0);
                if (size < 0 && errno == EINTR) {
                        continue;
                }
                if (size <= 0) {
                        return Dump::kFailed;  // also after a second: see links.cc
                }
                int left = static_cast<int>(size);
                for (const auto* one = reinterpret_cast<const nlmsghdr*>(buffer.data()); mnl_nlmsg_ok(one, left);
                     one = mnl_nlmsg_next(one, &left)) {
                        if (one->nlmsg_seq != from.last) {
                                continue;  // of a question that was given up
                        }
                        interrupted = interrupted || (one->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
                        if (one->nlmsg_type == NLMSG_DONE) {
                                return interrupted ? Dump::kAgain : Dump::kWhole;
                        }
                        if (one->nlmsg_type == NLMSG_ERROR) {
                                return Dump::kFailed;
                        }
                        add_link(one, known);
                }
        }
}

// Under its lock.
Known ask_elsewhere(Elsewhere& from) {
        constexpr int kTries = 5;  // links that come and go while they are told
        Known known;
        for (int i = 0; i < kTries; i++) {
                known.clear();
                if (dump_links(from, known) != Dump::kAgain) {
                        break;
                }
        }
        return known;
}

Known known_here() {
        const std::unique_ptr<struct if_nameindex, void (*)(struct if_nameindex*)> all(::if_nameindex(),
                                                                                       if_freenameindex);
        Known known;
        for (const auto* each = all.get(); each != nullptr && each->if_index != 0; each++) {
                known.emplace(each->if_name, each->if_index);
        }
        return known;
}

Known known_now() {
        Elsewhere& from = elsewhere();
        {
                const std::scoped_lock lock(from.mutex);
                if (from.kept || from.netlink) {
                        return from.kept ? *from.kept : ask_elsewhere(from);
                }
        }
        return known_here();
}

}  // namespace

std::function<std::uint32_t(const std::string&)> interfaces_now() {
        return [known = known_now()](const std::string& name) {
                const auto found = known.find(name);
                return found == known.end() ? 0U : found->second;
        };
}

void ask_interfaces_by(OwnedFd netlink) {
        elsewhere().netlink = std::move(netlink);
}

void stop_asking_for_interfaces() {
        Elsewhere& from = elsewhere();
        const std::scoped_lock lock(from.mutex);
        if (from.netlink) {
                from.kept = ask_elsewhere(from);
                from.netlink.reset();
        }
}

}  // namespace sockbroker
