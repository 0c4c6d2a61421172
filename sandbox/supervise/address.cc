// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/address.h"

#include <algorithm>

#include "bpf/layout.h"

namespace sockbroker::supervise {

namespace {

// FNV-1a with a finisher, since names differ in their last letter.
std::uint64_t hash(std::string_view text, std::uint64_t seed) {
        std::uint64_t value = 0xcbf29ce484222325ULL ^ (seed * 0x9e3779b97f4a7c15ULL);
        for (const char c : text) {
                value = (value ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
        }
        value = (value ^ (value >> 33)) * 0xff51afd7ed558ccdULL;
        value = (value ^ (value >> 33)) * 0xc4ceb9fe1a85ec53ULL;
        return value ^ (value >> 33);
}

}  // namespace

Address place_of(std::string_view service, Family family, unsigned attempt) {
        Address address{.family = family};
        auto& bytes = address.bytes;
        if (family == Family::kIpv4) {
                const std::uint64_t value = hash(service, attempt);
                bytes[0] = 127;
                bytes[1] = static_cast<std::uint8_t>(64 + (value >> 16) % 160);
                bytes[2] = static_cast<std::uint8_t>(value >> 8);
                bytes[3] = static_cast<std::uint8_t>(1 + value % 254);
                return address;
        }
        const std::uint64_t high = hash(service, 2 * attempt + 101);
        const std::uint64_t low = hash(service, 2 * attempt + 102);
        for (unsigned i = 0; i < 8; i++) {
                bytes[i] = static_cast<std::uint8_t>(high >> (8 * i));
                bytes[8 + i] = static_cast<std::uint8_t>(low >> (8 * i));
        }
        for (unsigned i = 0; i < 6; i++) {
                bytes[i] = static_cast<std::uint8_t>(SB_PLACES >> (8 * (5 - i)));
        }
        bytes[15] |= 1;  // never the subnet's anycast address
        return address;
}

std::vector<std::uint16_t> ports_of(Protocol protocol, std::uint16_t asked, unsigned first_unprivileged) {
        if (protocol == Protocol::kUdp) {
                return {asked};
        }
        constexpr unsigned kBase = 20000;  // below the ports that the kernel chooses
        constexpr unsigned kSpread = 10000;
        const unsigned base = std::clamp(first_unprivileged, kBase, 65535 - kSpread);
        const auto high = static_cast<std::uint16_t>(base + asked % kSpread);
        if (asked < first_unprivileged || asked == high) {
                return {high};
        }
        return {asked, high};
}

}  // namespace sockbroker::supervise
