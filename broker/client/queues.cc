// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See queues.h. A dump, and not the look-up of one socket: for a listener the kernel would answer that by a look-up of
// its own, which dispatch programs and SO_REUSEPORT groups decide.
#include "broker/client/queues.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "broker/base/owned_fd.h"

namespace sockbroker {

namespace {

struct DiagRequest {
        nlmsghdr header;
        inet_diag_req_v2 body;
};

constexpr timeval kPatience = {.tv_sec = 5, .tv_usec = 0};

// Of SK_MEMINFO, among the attributes behind a socket.
std::optional<std::uint32_t> read_drops(const char* data, std::size_t length) {
        while (length >= sizeof(nlattr)) {
                nlattr attribute{};
                std::memcpy(&attribute, data, sizeof attribute);
                if (attribute.nla_len < sizeof attribute || attribute.nla_len > length) {
                        return std::nullopt;
                }
                std::uint32_t drops = 0;
                const std::size_t at = NLA_HDRLEN + SK_MEMINFO_DROPS * sizeof drops;
                if (attribute.nla_type == INET_DIAG_SKMEMINFO && attribute.nla_len >= at + sizeof drops) {
                        std::memcpy(&drops, data + at, sizeof drops);
                        return drops;
                }
                const std::size_t step = std::min<std::size_t>(NLA_ALIGN(attribute.nla_len), length);
                data += step;
                length -= step;
        }
        return std::nullopt;
}

// One datagram of the dump. True: it was the last.
Result<bool> take(const char* data, std::size_t length, Queues& queues) {
        while (length >= sizeof(nlmsghdr)) {
                nlmsghdr header{};
                std::memcpy(&header, data, sizeof header);
                if (header.nlmsg_len < sizeof header || header.nlmsg_len > length) {
                        return fail(EPROTO, "sock_diag answers with a message that is cut off");
                }
                if (header.nlmsg_type == NLMSG_DONE) {
                        return true;
                }
                if (header.nlmsg_type == NLMSG_ERROR) {
                        nlmsgerr error{};
                        std::memcpy(&error, data + NLMSG_HDRLEN, std::min<std::size_t>(sizeof error, length));
                        return fail(error.error, "sock_diag cannot list sockets (modules tcp_diag and udp_diag)");
                }
                inet_diag_msg socket{};
                if (header.nlmsg_len >= NLMSG_LENGTH(sizeof socket)) {
                        std::memcpy(&socket, data + NLMSG_HDRLEN, sizeof socket);
                        const std::uint64_t cookie =
                                socket.id.idiag_cookie[0] | std::uint64_t{socket.id.idiag_cookie[1]} << 32;
                        queues[cookie] = {.depth = socket.idiag_rqueue,
                                          .limit = socket.idiag_state == TCP_LISTEN ? socket.idiag_wqueue : 0,
                                          .drops = read_drops(data + NLMSG_LENGTH(sizeof socket),
                                                              header.nlmsg_len - NLMSG_LENGTH(sizeof socket))};
                }
                const std::size_t step = std::min<std::size_t>(NLMSG_ALIGN(header.nlmsg_len), length);
                data += step;
                length -= step;
        }
        return false;
}

}  // namespace

Result<Queues> read_queues(Protocol protocol, int address_family) {
        // A service's sandbox may refuse the family.
        const OwnedFd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
        if (!fd) {
                return fail_errno(
                        "cannot make a netlink socket to read the queues of sockets (in a unit: "
                        "RestrictAddressFamilies= must have AF_NETLINK)");
        }
        (void)setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof kPatience);  // only for a better error
        DiagRequest request{};
        request.header.nlmsg_len = sizeof request;
        request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
        request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
        request.body.sdiag_family = static_cast<__u8>(address_family);
        request.body.sdiag_protocol = protocol == Protocol::kTcp ? IPPROTO_TCP : IPPROTO_UDP;
        request.body.idiag_ext = 1U << (INET_DIAG_SKMEMINFO - 1);
        request.body.idiag_states = 1U << (protocol == Protocol::kTcp ? TCP_LISTEN : TCP_CLOSE);
        if (send(fd.get(), &request, sizeof request, 0) < 0) {
                return fail_errno("cannot ask sock_diag for the queues of sockets");
        }
        Queues queues;
        alignas(nlmsghdr) std::array<char, 32768> buffer{};
        for (;;) {
                const ssize_t length = recv(fd.get(), buffer.data(), buffer.size(), 0);
                if (length < 0 && errno == EINTR) {
                        continue;
                }
                if (length <= 0) {
                        return fail_errno("cannot read the answer of sock_diag");
                }
                const Result<bool> last = take(buffer.data(), static_cast<std::size_t>(length), queues);
                if (!last) {
                        return std::unexpected(last.error());
                }
                if (*last) {
                        return queues;
                }
        }
}

}  // namespace sockbroker
