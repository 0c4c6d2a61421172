// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The sockets of a service as the records of bpf/layout.h hold them. Pure: memory in, memory out. Whoever reads checks
// every index, since the records may have been written by another broker.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "bpf/layout.h"
#include "broker/dataplane/dataplane.h"

namespace sockbroker {

// How many records these targets take: one, and those of the chains.
[[nodiscard]] std::size_t records_for(const Targets& targets);

// Writes the targets into the records of these indices, as many as records_for() says; the first is the service's.
void write_records(const Targets& targets, std::span<const std::uint32_t> indices, std::span<sb_record> records);

[[nodiscard]] Targets read_records(std::uint32_t index, std::span<const sb_record> records);

// The record and those of its chains.
[[nodiscard]] std::vector<std::uint32_t> records_behind(std::uint32_t index, std::span<const sb_record> records);

// sb_service::newest for these targets.
[[nodiscard]] std::uint64_t newest_of(const Targets& targets);

}  // namespace sockbroker
