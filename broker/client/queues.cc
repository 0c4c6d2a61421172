// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See queues.h. A dump, and not the lookup of one socket: for a listener the kernel would answer that by a lookup of
// its own, which dispatch programs and SO_REUSEPORT groups decide.
#include "broker/client/queues.h"

#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cstring>

#include "broker/client/netlink_dump.h"

namespace sockbroker {

namespace {

struct DiagRequest {
        nlmsghdr header;
        inet_diag_req_v2 body;
};

std::optional<std::uint32_t> read_drops(std::span<const char> attributes) {
        std::uint32_t drops = 0;
        const auto memory = netlink_attribute(attributes, INET_DIAG_SKMEMINFO);
        if (!memory || memory->size() < (SK_MEMINFO_DROPS + 1) * sizeof drops) {
                return std::nullopt;
        }
        std::memcpy(&drops, memory->data() + SK_MEMINFO_DROPS * sizeof drops, sizeof drops);
        return drops;
}

}  // namespace

Result<void> dump_sockets(Protocol protocol, int address_family,
                          const std::function<void(const inet_diag_msg&, std::span<const char>)>& take) {
        DiagRequest request{};
        request.header.nlmsg_len = sizeof request;
        request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
        request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
        request.body.sdiag_family = static_cast<__u8>(address_family);
        request.body.sdiag_protocol = protocol == Protocol::kTcp ? IPPROTO_TCP : IPPROTO_UDP;
        request.body.idiag_ext = 1U << (INET_DIAG_SKMEMINFO - 1);
        request.body.idiag_states = 1U << (protocol == Protocol::kTcp ? TCP_LISTEN : TCP_CLOSE);
        return netlink_dump(NETLINK_SOCK_DIAG, {reinterpret_cast<const char*>(&request), sizeof request},
                            "sockets (modules tcp_diag and udp_diag)", [&](std::span<const char> body) {
                                    inet_diag_msg socket{};
                                    if (body.size() >= sizeof socket) {
                                            std::memcpy(&socket, body.data(), sizeof socket);
                                            take(socket, body.subspan(NLMSG_ALIGN(sizeof socket)));
                                    }
                            });
}

Result<Queues> read_queues(Protocol protocol, int address_family) {
        Queues queues;
        const auto read = dump_sockets(
                protocol, address_family, [&](const inet_diag_msg& socket, std::span<const char> attributes) {
                        const std::uint64_t cookie =
                                socket.id.idiag_cookie[0] | std::uint64_t{socket.id.idiag_cookie[1]} << 32;
                        queues[cookie] = {.depth = socket.idiag_rqueue,
                                          .limit = socket.idiag_state == TCP_LISTEN ? socket.idiag_wqueue : 0,
                                          .drops = read_drops(attributes)};
                });
        if (!read) {
                return std::unexpected(read.error());
        }
        return queues;
}

}  // namespace sockbroker
