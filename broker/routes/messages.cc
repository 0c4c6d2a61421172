// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/routes/messages.h"

#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <array>
#include <cstring>

namespace sockbroker::routes {

namespace {

int af_of(Family family) {
        return family == Family::kIpv4 ? AF_INET : AF_INET6;
}

std::size_t bytes_of(Family family) {
        return address_bits(family) / 8;
}

std::uint8_t type_of(Kind kind) {
        return kind == Kind::kLocal ? RTN_LOCAL : RTN_BLACKHOLE;
}

rtmsg head_of(Kind kind, Family family, const Numbers& numbers) {
        const auto table = table_of(kind, numbers);
        rtmsg head{};
        head.rtm_family = static_cast<unsigned char>(af_of(family));
        head.rtm_table = static_cast<unsigned char>(table > 255 ? std::uint32_t{RT_TABLE_UNSPEC} : table);
        head.rtm_protocol = static_cast<unsigned char>(numbers.protocol);
        head.rtm_type = type_of(kind);
        return head;
}

rtmsg* put_head(nlmsghdr* message, const rtmsg& head) {
        auto* put = static_cast<rtmsg*>(mnl_nlmsg_put_extra_header(message, sizeof(rtmsg)));
        *put = head;
        return put;
}

struct Attributes {
        std::array<const nlattr*, RTA_MAX + 1> of{};
};

template <std::size_t kHead>
Attributes attributes_of(const nlmsghdr* message) {
        Attributes found;
        mnl_attr_parse(
                message, kHead,
                [](const nlattr* attribute, void* data) {
                        const auto type = mnl_attr_get_type(attribute);
                        if (type <= RTA_MAX) {
                                static_cast<Attributes*>(data)->of[type] = attribute;
                        }
                        return MNL_CB_OK;
                },
                &found);
        return found;
}

std::uint32_t table_in(const rtmsg& head, const Attributes& attributes) {
        const auto* table = attributes.of[RTA_TABLE];
        return table != nullptr ? mnl_attr_get_u32(table) : head.rtm_table;
}

std::optional<Address> address_of(int af, const nlattr* attribute) {
        if (af != AF_INET && af != AF_INET6) {
                return std::nullopt;
        }
        Address address{.family = af == AF_INET ? Family::kIpv4 : Family::kIpv6, .bytes = {}};
        if (attribute == nullptr) {
                return address;  // of the default route
        }
        if (mnl_attr_get_payload_len(attribute) != bytes_of(address.family)) {
                return std::nullopt;
        }
        std::memcpy(address.bytes.data(), mnl_attr_get_payload(attribute), bytes_of(address.family));
        return address;
}

}  // namespace

std::uint32_t table_of(Kind kind, const Numbers& numbers) {
        return kind == Kind::kLocal ? std::uint32_t{RT_TABLE_LOCAL} : numbers.announce_table;
}

std::uint32_t table_of(const nlmsghdr* route) {
        return table_in(*static_cast<const rtmsg*>(mnl_nlmsg_get_payload(route)), attributes_of<sizeof(rtmsg)>(route));
}

void put_request(nlmsghdr* message, Kind kind, Family family, const Numbers& numbers) {
        put_head(message, head_of(kind, family, numbers));
        mnl_attr_put_u32(message, RTA_TABLE, table_of(kind, numbers));
}

void put_route(nlmsghdr* message, Kind kind, const Prefix& prefix, const Numbers& numbers) {
        const auto family = prefix.address.family;
        auto* head = put_head(message, head_of(kind, family, numbers));
        head->rtm_dst_len = prefix.length;
        head->rtm_scope = kind == Kind::kLocal && family == Family::kIpv4 ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE;
        mnl_attr_put(message, RTA_DST, bytes_of(family), prefix.address.bytes.data());
        mnl_attr_put_u32(message, RTA_TABLE, table_of(kind, numbers));
        if (kind == Kind::kLocal) {
                mnl_attr_put_u32(message, RTA_OIF, kLoopback);
        }
}

std::optional<Prefix> own_route(const nlmsghdr* message, Kind kind, const Numbers& numbers) {
        if (message->nlmsg_type != RTM_NEWROUTE || mnl_nlmsg_get_payload_len(message) < sizeof(rtmsg)) {
                return std::nullopt;
        }
        const auto* head = static_cast<const rtmsg*>(mnl_nlmsg_get_payload(message));
        const auto attributes = attributes_of<sizeof(rtmsg)>(message);
        if (head->rtm_protocol != numbers.protocol || head->rtm_type != type_of(kind) || head->rtm_tos != 0 ||
            table_in(*head, attributes) != table_of(kind, numbers)) {
                return std::nullopt;
        }
        const auto address = address_of(head->rtm_family, attributes.of[RTA_DST]);
        return address ? std::optional(Prefix{*address, head->rtm_dst_len}) : std::nullopt;
}

std::optional<Prefix> connected_network(const nlmsghdr* message) {
        if (message->nlmsg_type != RTM_NEWADDR || mnl_nlmsg_get_payload_len(message) < sizeof(ifaddrmsg)) {
                return std::nullopt;
        }
        const auto* head = static_cast<const ifaddrmsg*>(mnl_nlmsg_get_payload(message));
        const auto attributes = attributes_of<sizeof(ifaddrmsg)>(message);
        const auto address = address_of(head->ifa_family, attributes.of[IFA_ADDRESS]);
        if (head->ifa_index == kLoopback || !address || attributes.of[IFA_ADDRESS] == nullptr) {
                return std::nullopt;
        }
        if (head->ifa_prefixlen == address_bits(address->family)) {
                // An address of the machine's own, which is local as it is; or the other end of a line.
                const auto local = address_of(head->ifa_family, attributes.of[IFA_LOCAL]);
                if (attributes.of[IFA_LOCAL] == nullptr || local == address) {
                        return std::nullopt;
                }
        }
        return Prefix{masked(*address, head->ifa_prefixlen), head->ifa_prefixlen};
}

}  // namespace sockbroker::routes
