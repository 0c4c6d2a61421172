// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/routes/wire.h"

#include <cstring>
#include <type_traits>

namespace sockbroker::routes {

namespace {

constexpr std::uint32_t kMagic = 0x31524253;  // "SBR1": both ends are of one version

struct Head {
        std::uint32_t magic = kMagic;
        std::uint8_t step = 0;
        std::uint8_t kind = 0;
        std::uint16_t count = 0;
        std::uint32_t number = 0;
};
static_assert(sizeof(Head) == 12);

struct WirePrefix {
        std::uint8_t family = 0;
        std::uint8_t length = 0;
        std::uint8_t bytes[16] = {};
};
static_assert(sizeof(WirePrefix) == 18);
static_assert(sizeof(Head) + kPrefixesInRecord * sizeof(WirePrefix) <= kMaxRecord);

struct WireReport {
        std::uint32_t magic = kMagic;
        std::uint8_t kind = 0;
        std::uint8_t reason = 0;
        WirePrefix example;
        std::uint32_t number = 0, standing = 0, others = 0, refused = 0, added = 0, removed = 0, errnum = 0;
};
static_assert(sizeof(WireReport) == 52);

template <class Part>
void append(std::string& record, const Part& part) {
        static_assert(std::is_trivially_copyable_v<Part>);
        record.append(reinterpret_cast<const char*>(&part), sizeof part);
}

template <class Part>
Part read_at(std::string_view record, std::size_t offset) {
        Part part;
        std::memcpy(&part, record.data() + offset, sizeof part);
        return part;
}

WirePrefix wire_of(const Prefix& prefix) {
        WirePrefix wire{.family = static_cast<std::uint8_t>(prefix.address.family), .length = prefix.length};
        std::memcpy(wire.bytes, prefix.address.bytes.data(), sizeof wire.bytes);
        return wire;
}

// In its one form: what lies beyond the address of a family is zero.
std::optional<Prefix> prefix_of(const WirePrefix& wire) {
        if (wire.family > static_cast<std::uint8_t>(Family::kIpv6)) {
                return std::nullopt;
        }
        Prefix prefix{.address = {.family = static_cast<Family>(wire.family), .bytes = {}}, .length = wire.length};
        std::memcpy(prefix.address.bytes.data(), wire.bytes, sizeof wire.bytes);
        if (prefix.length > address_bits(prefix.address.family) ||
            masked(prefix.address, prefix.length) != prefix.address) {
                return std::nullopt;
        }
        return prefix;
}

std::string encode(Step step, Kind kind, std::size_t count, std::uint32_t number) {
        std::string record;
        append(record, Head{.step = static_cast<std::uint8_t>(step),
                            .kind = static_cast<std::uint8_t>(kind),
                            .count = static_cast<std::uint16_t>(count),
                            .number = number});
        return record;
}

}  // namespace

std::string encode_begin(Kind kind) {
        return encode(Step::kBegin, kind, 0, 0);
}

std::string encode_prefixes(Kind kind, std::span<const Prefix> prefixes) {
        std::string record = encode(Step::kPrefixes, kind, prefixes.size(), 0);
        record.reserve(sizeof(Head) + prefixes.size() * sizeof(WirePrefix));
        for (const auto& prefix : prefixes) {
                append(record, wire_of(prefix));
        }
        return record;
}

std::string encode_end(Kind kind, std::uint32_t number) {
        return encode(Step::kEnd, kind, 0, number);
}

std::optional<Order> decode_order(std::string_view record) {
        if (record.size() < sizeof(Head)) {
                return std::nullopt;
        }
        const auto head = read_at<Head>(record, 0);
        const bool has_prefixes = head.step == static_cast<std::uint8_t>(Step::kPrefixes);
        if (head.magic != kMagic || head.kind >= kKinds || head.step < static_cast<std::uint8_t>(Step::kBegin) ||
            head.step > static_cast<std::uint8_t>(Step::kEnd) || has_prefixes != (head.count > 0) ||
            head.count > kPrefixesInRecord || record.size() != sizeof head + head.count * sizeof(WirePrefix)) {
                return std::nullopt;
        }
        Order order{.step = static_cast<Step>(head.step),
                    .kind = static_cast<Kind>(head.kind),
                    .number = head.number,
                    .prefixes = {}};
        order.prefixes.reserve(head.count);
        for (std::size_t i = 0; i < head.count; i++) {
                const auto prefix = prefix_of(read_at<WirePrefix>(record, sizeof head + i * sizeof(WirePrefix)));
                if (!prefix) {
                        return std::nullopt;
                }
                order.prefixes.push_back(*prefix);
        }
        return order;
}

std::string encode(const Report& report) {
        std::string record;
        append(record, WireReport{.kind = static_cast<std::uint8_t>(report.kind),
                                  .reason = static_cast<std::uint8_t>(report.reason),
                                  .example = wire_of(report.example),
                                  .number = report.number,
                                  .standing = report.standing,
                                  .others = report.others,
                                  .refused = report.refused,
                                  .added = report.added,
                                  .removed = report.removed,
                                  .errnum = report.errnum});
        return record;
}

std::optional<Report> decode_report(std::string_view record) {
        if (record.size() != sizeof(WireReport)) {
                return std::nullopt;
        }
        const auto wire = read_at<WireReport>(record, 0);
        const auto example = prefix_of(wire.example);
        if (wire.magic != kMagic || wire.kind >= kKinds || wire.reason > static_cast<std::uint8_t>(Reason::kKernel) ||
            !example) {
                return std::nullopt;
        }
        return Report{.kind = static_cast<Kind>(wire.kind),
                      .number = wire.number,
                      .standing = wire.standing,
                      .others = wire.others,
                      .refused = wire.refused,
                      .added = wire.added,
                      .removed = wire.removed,
                      .reason = static_cast<Reason>(wire.reason),
                      .errnum = wire.errnum,
                      .example = *example};
}

}  // namespace sockbroker::routes
