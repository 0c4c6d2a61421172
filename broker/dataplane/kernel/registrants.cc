// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/registrants.h"

#include <bpf/bpf.h>

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

namespace sockbroker {

namespace {

constexpr std::uint8_t kServesIpv4 = 1;
constexpr std::uint8_t kServesIpv6 = 2;

}  // namespace

Result<sb_registrant> read_registrant(int map_fd, Slot slot) {
        sb_registrant raw{};
        if (bpf_map_lookup_elem(map_fd, &slot, &raw) != 0) {
                return fail_errno(fmt::format("cannot read the record of slot {}", slot));
        }
        return raw;
}

Result<void> write_registrant(int map_fd, Slot slot, const Registrant* registrant) {
        sb_registrant raw{};
        if (registrant != nullptr) {
                raw.cookie = registrant->cookie;
                raw.since_usec = registrant->since_usec;
                raw.service = registrant->service;
                raw.pid = static_cast<std::uint32_t>(registrant->pid);
                raw.uid = registrant->uid;
                raw.gid = registrant->gid;
                raw.protocol = static_cast<std::uint8_t>(registrant->protocol);
                raw.family = registrant->family;
                raw.serves = static_cast<std::uint8_t>((registrant->serves_ipv4 ? kServesIpv4 : 0) |
                                                       (registrant->serves_ipv6 ? kServesIpv6 : 0));
                raw.bound_family = static_cast<std::uint8_t>(registrant->bound.address.family);
                raw.bound_port = registrant->bound.port;
                raw.registered_usec = registrant->registered_usec;
                raw.gone_usec = registrant->gone_usec;
                raw.hold_until_usec = registrant->hold_until_usec;
                raw.user_name = registrant->user_name;
                raw.group_name = registrant->group_name;
                std::copy_n(registrant->bound.address.bytes.begin(), sizeof raw.bound_address, raw.bound_address);
                std::copy_n(registrant->unit.begin(), std::min(registrant->unit.size(), sizeof raw.unit - 1), raw.unit);
        }
        if (bpf_map_update_elem(map_fd, &slot, &raw, BPF_ANY) != 0) {
                return fail_errno(fmt::format("cannot write the record of slot {}", slot));
        }
        return {};
}

Registrant decode_registrant(const sb_registrant& raw) {
        Registrant result;
        result.service = raw.service;
        result.cookie = raw.cookie;
        result.since_usec = raw.since_usec;
        result.pid = static_cast<pid_t>(raw.pid);
        result.uid = raw.uid;
        result.gid = raw.gid;
        result.protocol = raw.protocol == 0 ? Protocol::kTcp : Protocol::kUdp;
        result.family = raw.family;
        result.serves_ipv4 = (raw.serves & kServesIpv4) != 0;
        result.serves_ipv6 = (raw.serves & kServesIpv6) != 0;
        result.bound.address.family = raw.bound_family == 0 ? Family::kIpv4 : Family::kIpv6;
        std::copy_n(raw.bound_address, sizeof raw.bound_address, result.bound.address.bytes.begin());
        result.bound.port = raw.bound_port;
        result.registered_usec = raw.registered_usec;
        result.gone_usec = raw.gone_usec;
        result.hold_until_usec = raw.hold_until_usec;
        result.user_name = raw.user_name;
        result.group_name = raw.group_name;
        result.unit.assign(raw.unit, strnlen(raw.unit, sizeof raw.unit));
        return result;
}

}  // namespace sockbroker
