// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/compile/port_table.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "bpf/layout.h"

namespace sockbroker {

namespace {

constexpr std::size_t kStarts = SB_LINE_BYTES / 2;  // in a line
constexpr std::size_t kReferences = SB_LINE_BYTES / 4;

std::size_t lines_of(std::size_t entries, std::size_t in_line) {
        return (entries + in_line - 1) / in_line;
}

}  // namespace

std::uint32_t write_port_table(RuleMemory& lines, std::span<const std::uint16_t> starts,
                               std::span<const std::uint32_t> references) {
        std::vector<std::vector<std::uint16_t>> levels{{starts.begin(), starts.end()}};  // from the leaves
        while (levels.back().size() > kStarts) {
                std::vector<std::uint16_t> above;
                for (std::size_t i = 0; i < levels.back().size(); i += kStarts) {
                        above.push_back(levels.back()[i]);
                }
                levels.push_back(std::move(above));
        }
        const std::size_t first = lines.size();
        std::size_t line = first;
        for (auto level = levels.rbegin(); level != levels.rend(); ++level) {
                const std::size_t count = lines_of(level->size(), kStarts);
                lines.resize(line + count);
                std::fill_n(lines[line + count - 1].starts, kStarts, std::uint16_t{65535});
                for (std::size_t i = 0; i < level->size(); i++) {
                        lines[line + i / kStarts].starts[i % kStarts] = (*level)[i];
                }
                line += count;
        }
        lines.resize(line + lines_of(references.size(), kReferences));
        for (std::size_t i = 0; i < references.size(); i++) {
                lines[line + i / kReferences].refs[i % kReferences] = references[i];
        }
        return static_cast<std::uint32_t>(first);
}

}  // namespace sockbroker
