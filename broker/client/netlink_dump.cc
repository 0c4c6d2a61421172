// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/client/netlink_dump.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "broker/base/owned_fd.h"

namespace sockbroker {

namespace {

constexpr timeval kPatience = {.tv_sec = 5, .tv_usec = 0};

// One datagram of the dump. True: it was the last.
Result<bool> take_datagram(std::span<const char> data, std::string_view what,
                           const std::function<void(std::span<const char>)>& take) {
        while (data.size() >= sizeof(nlmsghdr)) {
                nlmsghdr header{};
                std::memcpy(&header, data.data(), sizeof header);
                if (header.nlmsg_len < sizeof header || header.nlmsg_len > data.size()) {
                        return fail(EPROTO, fmt::format("the kernel's answer about {} is cut off", what));
                }
                const auto body = data.subspan(NLMSG_HDRLEN, header.nlmsg_len - NLMSG_HDRLEN);
                if (header.nlmsg_type == NLMSG_DONE) {
                        return true;
                }
                if (header.nlmsg_type == NLMSG_ERROR) {
                        nlmsgerr error{};
                        std::memcpy(&error, body.data(), std::min(sizeof error, body.size()));
                        return fail(error.error, fmt::format("the kernel cannot list {}", what));
                }
                take(body);
                data = data.subspan(std::min<std::size_t>(NLMSG_ALIGN(header.nlmsg_len), data.size()));
        }
        return false;
}

}  // namespace

Result<void> netlink_dump(int protocol, std::span<const char> request, std::string_view what,
                          const std::function<void(std::span<const char> body)>& take) {
        const OwnedFd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
        if (!fd) {  // a service's sandbox may refuse the family
                return fail_errno(
                        fmt::format("cannot make a netlink socket to list {} (in a unit: RestrictAddressFamilies= must "
                                    "have AF_NETLINK)",
                                    what));
        }
        (void)setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof kPatience);  // only for a better error
        const int yes = 1;  // what the request says is kept to; without it all is listed, which the caller can take too
        (void)setsockopt(fd.get(), SOL_NETLINK, NETLINK_GET_STRICT_CHK, &yes, sizeof yes);
        if (send(fd.get(), request.data(), request.size(), 0) < 0) {
                return fail_errno(fmt::format("cannot ask the kernel for {}", what));
        }
        alignas(nlmsghdr) std::array<char, 32768> buffer{};
        for (;;) {
                const ssize_t length = recv(fd.get(), buffer.data(), buffer.size(), 0);
                if (length < 0 && errno == EINTR) {
                        continue;
                }
                if (length <= 0) {
                        return fail_errno(fmt::format("cannot read the kernel's answer about {}", what));
                }
                const auto last = take_datagram({buffer.data(), static_cast<std::size_t>(length)}, what, take);
                if (!last) {
                        return std::unexpected(last.error());
                }
                if (*last) {
                        return {};
                }
        }
}

std::optional<std::span<const char>> netlink_attribute(std::span<const char> data, unsigned type) {
        while (data.size() >= sizeof(nlattr)) {
                nlattr attribute{};
                std::memcpy(&attribute, data.data(), sizeof attribute);
                if (attribute.nla_len < sizeof attribute || attribute.nla_len > data.size()) {
                        return std::nullopt;
                }
                if (attribute.nla_type == type) {
                        return data.subspan(NLA_HDRLEN, attribute.nla_len - NLA_HDRLEN);
                }
                data = data.subspan(std::min<std::size_t>(NLA_ALIGN(attribute.nla_len), data.size()));
        }
        return std::nullopt;
}

}  // namespace sockbroker
