// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The protocol between the broker and the process that makes routes, over a SOCK_SEQPACKET socket. All that the broker
// can say: these are all prefixes of one kind. It has no say in table, type and protocol number. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "broker/base/net.h"
#include "broker/routes/route.h"

namespace sockbroker::routes {

inline constexpr std::size_t kPrefixesInRecord = 3000;
inline constexpr std::size_t kMaxRecord = 65536;

// A list begins, goes on, ends; one kind at a time. Until its end nothing of it counts.
enum class Step : std::uint8_t { kBegin = 1, kPrefixes = 2, kEnd = 3 };

struct Order {
        Step step = Step::kBegin;
        Kind kind = Kind::kLocal;
        std::uint32_t number = 0;      // kEnd: comes back with the answer
        std::vector<Prefix> prefixes;  // kPrefixes: 1 to kPrefixesInRecord
};

[[nodiscard]] std::string encode_begin(Kind kind);
[[nodiscard]] std::string encode_prefixes(Kind kind, std::span<const Prefix> prefixes);
[[nodiscard]] std::string encode_end(Kind kind, std::uint32_t number);
// None: no such record. A prefix is well formed, but whether it may have a route is not asked here.
[[nodiscard]] std::optional<Order> decode_order(std::string_view record);

// Why a prefix of a list has no route of the broker's.
enum class Reason : std::uint8_t {
        kNone = 0,
        kUnroutable = 1,  // why_unroutable()
        kConnected = 2,   // a network that an interface is connected to is the same, or lies in it
        kKernel = 3,      // the kernel would not take it
};

// To the broker, after each list, and whenever the kernel had lost routes which were then made again.
struct Report {
        Kind kind = Kind::kLocal;
        std::uint32_t number = 0;    // of the list; the last one if nobody asked
        std::uint32_t standing = 0;  // of the broker's own
        std::uint32_t others = 0;    // somebody else has a route for the very prefix, which serves as well
        std::uint32_t refused = 0;   // none stands
        std::uint32_t added = 0;     // just now
        std::uint32_t removed = 0;
        Reason reason = Reason::kNone;  // of the first that was refused
        std::uint32_t errnum = 0;       // of kKernel
        Prefix example;
};

[[nodiscard]] std::string encode(const Report& report);
[[nodiscard]] std::optional<Report> decode_report(std::string_view record);

}  // namespace sockbroker::routes
