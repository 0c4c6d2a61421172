// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/base/net.h"

#include <arpa/inet.h>
#include <endian.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <span>

#include <fmt/format.h>

namespace sockbroker {

std::string_view to_string(Protocol protocol) {
        return protocol == Protocol::kTcp ? "tcp" : "udp";
}

std::string_view to_string(Family family) {
        return family == Family::kIpv4 ? "ipv4" : "ipv6";
}

std::optional<Protocol> parse_protocol(std::string_view text) {
        if (text == "tcp") {
                return Protocol::kTcp;
        }
        if (text == "udp") {
                return Protocol::kUdp;
        }
        return std::nullopt;
}

std::optional<std::uint64_t> parse_number(std::string_view text, std::uint64_t limit) {
        std::uint64_t value = 0;
        const char* end = text.data() + text.size();
        // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): `end` bounds it.
        const auto [stop, error] = std::from_chars(text.data(), end, value);
        if (text.empty() || error != std::errc{} || stop != end || value > limit) {
                return std::nullopt;
        }
        return value;
}

std::string Address::to_string() const {
        char buffer[INET6_ADDRSTRLEN];
        const int af = family == Family::kIpv4 ? AF_INET : AF_INET6;
        return inet_ntop(af, bytes.data(), buffer, sizeof buffer);
}

namespace {

// As inet_pton(3): four numbers from 0 to 255 without leading zeros. A policy may have a million of them.
bool parse_ipv4(std::string_view text, std::span<std::uint8_t, 4> bytes) {
        std::size_t at = 0;
        for (std::size_t i = 0; i < bytes.size(); i++) {
                if (i > 0 && (at == text.size() || text[at] != '.')) {
                        return false;
                }
                at += i > 0 ? 1 : 0;
                const std::size_t first = at;
                unsigned value = 0;
                for (; at < text.size() && text[at] >= '0' && text[at] <= '9' && at - first < 3; at++) {
                        value = value * 10 + static_cast<unsigned>(text[at] - '0');
                }
                if (at == first || value > 255 || (at - first > 1 && text[first] == '0')) {
                        return false;
                }
                bytes[i] = static_cast<std::uint8_t>(value);
        }
        return at == text.size();
}

}  // namespace

std::optional<Address> parse_address(std::string_view text) {
        Address address;
        if (parse_ipv4(text, std::span(address.bytes).first<4>())) {
                return address;
        }
        char terminated[INET6_ADDRSTRLEN] = {};
        if (text.size() >= sizeof terminated || text.find('\0') != std::string_view::npos) {
                return std::nullopt;
        }
        text.copy(terminated, text.size());
        address.family = Family::kIpv6;
        if (inet_pton(AF_INET6, terminated, address.bytes.data()) != 1) {
                return std::nullopt;
        }
        if (unmapped(address) != address) {
                return std::nullopt;
        }
        return address;
}

Address unmapped(const Address& address) {
        static constexpr std::uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
        if (address.family != Family::kIpv6 || std::memcmp(address.bytes.data(), kMapped, sizeof kMapped) != 0) {
                return address;
        }
        Address ipv4{.family = Family::kIpv4};
        std::ranges::copy(std::span(address.bytes).subspan<sizeof kMapped>(), ipv4.bytes.begin());
        return ipv4;
}

bool is_loopback(const Address& address) {
        if (address.family == Family::kIpv4) {
                return address.bytes[0] == 127;
        }
        const std::span rest = std::span(address.bytes).first(address.bytes.size() - 1);
        return address.bytes.back() == 1 && std::ranges::all_of(rest, [](std::uint8_t byte) { return byte == 0; });
}

bool is_multicast(const Address& address) {
        return address.family == Family::kIpv4 ? (address.bytes[0] & 0xf0) == 0xe0 : address.bytes[0] == 0xff;
}

bool is_broadcast(const Address& address) {
        const auto used = std::span(address.bytes).first(4);
        return address.family == Family::kIpv4 &&
               std::ranges::all_of(used, [](std::uint8_t byte) { return byte == 255; });
}

Address masked(const Address& address, unsigned length) {
        const auto mask_of = [](unsigned bits) {
                return bits == 0 ? 0 : htobe64(~std::uint64_t{0} << (64 - std::min(bits, 64U)));
        };
        std::array<std::uint64_t, 2> halves{};
        std::memcpy(halves.data(), address.bytes.data(), sizeof halves);
        halves[0] &= mask_of(length);
        halves[1] &= mask_of(length - std::min(length, 64U));
        Address result{.family = address.family};
        std::memcpy(result.bytes.data(), halves.data(), sizeof halves);
        return result;
}

bool Prefix::contains(const Address& other) const {
        return other.family == address.family && masked(other, length) == address;
}

std::string Prefix::to_string() const {
        return fmt::format("{}/{}", address.to_string(), length);
}

namespace {

// What was probably meant by text that is no address, and what to write; empty where that is anybody's guess.
std::string_view hint_for(std::string_view text) {
        const auto has = [text](std::string_view some) { return text.find_first_of(some) != std::string_view::npos; };
        if (text.find('%') != std::string_view::npos) {
                return " (zones are not taken, Interface= names the interface)";
        }
        if (text.starts_with("::ffff:") || text.starts_with("::FFFF:")) {
                return " (v4-mapped addresses are not taken, write the IPv4 address)";
        }
        if (has("ghijklmnopqrstuvwxyzGHIJKLMNOPQRSTUVWXYZ") && text.find(':') == std::string_view::npos) {
                return " (host names are not taken, write addresses)";
        }
        return !text.empty() && text.find_first_not_of("0123456789.") == std::string_view::npos
                       ? " (write four numbers from 0 to 255, without leading zeros)"
                       : "";
}

}  // namespace

Result<Prefix> parse_prefix(std::string_view text) {
        const auto slash = text.find('/');
        const auto host = text.substr(0, slash);
        const auto address = parse_address(host);
        if (!address) {
                return fail(fmt::format("\"{}\" is not an IPv4 or IPv6 address{}", host, hint_for(host)));
        }
        unsigned length = address_bits(address->family);
        if (slash != std::string_view::npos) {
                const auto digits = text.substr(slash + 1);
                const auto number = parse_number(digits, length);
                if (!number || (digits.size() > 1 && digits[0] == '0')) {
                        return fail(fmt::format("prefix length \"{}\" is not a number from 0 to {}", digits, length));
                }
                length = static_cast<unsigned>(*number);
        }
        const Prefix prefix{masked(*address, length), static_cast<std::uint8_t>(length)};
        if (prefix.address != *address) {
                return fail(fmt::format("host bits are set in {}, write {}", text, prefix.to_string()));
        }
        if (prefix.address.family == Family::kIpv6 && length > 80 && prefix.address.bytes[10] == 0xff &&
            Prefix{Address{Family::kIpv6, {}}, 80}.contains(prefix.address)) {
                // Lengths from 81 to 95 can end inside ::ffff:0:0/96, the v4-mapped block.
                return fail(fmt::format("{} lies in the v4-mapped block, write the IPv4 prefix", text));
        }
        return prefix;
}

std::string PortRange::to_string() const {
        if (first == last) {
                return std::to_string(first);
        }
        if (first == 1 && last == 65535) {
                return "*";
        }
        return fmt::format("{}-{}", first, last);
}

namespace {

Result<std::uint16_t> parse_port(std::string_view text) {
        const auto number = parse_number(text, 65535);
        if (!number || (text.size() > 1 && text[0] == '0')) {
                return fail(fmt::format("port \"{}\" is not a number from 1 to 65535", text));
        }
        if (*number == 0) {
                return fail("port 0 cannot be bound, ports run from 1 to 65535");
        }
        return static_cast<std::uint16_t>(*number);
}

}  // namespace

Result<PortRange> parse_ports(std::string_view text) {
        if (text == "*") {
                return PortRange{};
        }
        const auto dash = text.find('-');
        const auto first = parse_port(text.substr(0, dash));
        if (!first) {
                return std::unexpected(first.error());
        }
        if (dash == std::string_view::npos) {
                return PortRange{*first, *first};
        }
        const auto last = parse_port(text.substr(dash + 1));
        if (!last) {
                return std::unexpected(last.error());
        }
        if (*last < *first) {
                return fail(fmt::format("port range {} runs backwards, write {}-{}", text, *last, *first));
        }
        return PortRange{*first, *last};
}

std::string Endpoint::to_string() const {
        return address.family == Family::kIpv4 ? fmt::format("{}:{}", address.to_string(), port)
                                               : fmt::format("[{}]:{}", address.to_string(), port);
}

Result<Endpoint> parse_endpoint(std::string_view text) {
        const auto colon = text.rfind(':');
        if (colon == std::string_view::npos) {
                return fail(fmt::format("\"{}\" is not ADDRESS:PORT", text));
        }
        auto host = text.substr(0, colon);
        const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
        if (bracketed) {
                host = host.substr(1, host.size() - 2);
        }
        const auto address = parse_address(host);
        if (!address || bracketed != (address->family == Family::kIpv6)) {
                return fail(fmt::format("\"{}\" is not ADDRESS:PORT (IPv6 addresses stand in brackets)", text));
        }
        const auto port = parse_port(text.substr(colon + 1));
        if (!port) {
                return std::unexpected(port.error());
        }
        return Endpoint{*address, *port};
}

}  // namespace sockbroker
