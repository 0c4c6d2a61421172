// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/policy/findings.h"

#include <algorithm>
#include <iterator>

#include <fmt/format.h>

namespace sockbroker {

namespace {

Diagnostic left_out(const std::string& file, Severity severity, std::size_t count) {
        const auto* kind = severity == Severity::kError ? "error" : "warning";
        return {file, 0, severity, fmt::format("{} more {}{} in this file", count, kind, count == 1 ? "" : "s")};
}

}  // namespace

std::string Diagnostic::to_string() const {
        return line == 0 ? fmt::format("{}: {}", file, message) : fmt::format("{}:{}: {}", file, line, message);
}

// Makes room where what is kept comes later in the file. Counts what is left out.
bool Findings::is_kept(Where where, Severity severity) {
        auto& of_file = files_[{where.file, severity}];
        if (of_file.first.size() < kMaxPerFile && kept_ < kMaxInAll) {
                kept_++;
                return true;
        }
        of_file.left_out++;
        if (of_file.first.empty() || of_file.first.front().line <= where.line) {
                return false;
        }
        std::pop_heap(of_file.first.begin(), of_file.first.end());
        of_file.first.pop_back();
        return true;
}

void Findings::keep(Where where, Severity severity, std::string message) {
        auto& first = files_[{where.file, severity}].first;
        first.push_back({where.line, number_++, std::move(message)});
        std::push_heap(first.begin(), first.end());
}

std::vector<Diagnostic> Findings::take(const std::vector<std::string>& files) {
        std::vector<Diagnostic> all;
        for (auto next = files_.begin(); next != files_.end();) {
                // Errors and warnings of one file, merged by line.
                const auto file = next->first.first;
                std::vector<std::pair<Finding, Severity>> merged;
                std::vector<Diagnostic> closing;
                for (; next != files_.end() && next->first.first == file; next++) {
                        auto& [first, omitted] = next->second;
                        for (auto& finding : first) {
                                merged.emplace_back(std::move(finding), next->first.second);
                        }
                        if (omitted > 0) {
                                closing.push_back(left_out(files.at(file), next->first.second, omitted));
                        }
                }
                std::ranges::sort(merged, [](const auto& a, const auto& b) { return a.first < b.first; });
                for (auto& [finding, severity] : merged) {
                        all.push_back({files.at(file), finding.line, severity, std::move(finding.message)});
                }
                std::ranges::move(closing, std::back_inserter(all));
        }
        files_.clear();
        kept_ = 0;
        return all;
}

std::vector<Diagnostic> first_of_each_file(std::vector<Diagnostic> diagnostics) {
        Findings findings;
        std::vector<std::string> files;
        std::map<std::string, std::uint32_t, std::less<>> numbers;
        for (auto& diagnostic : diagnostics) {
                const auto [known, fresh] = numbers.try_emplace(diagnostic.file, files.size());
                if (fresh) {
                        files.push_back(diagnostic.file);
                }
                findings.add({known->second, diagnostic.line}, diagnostic.severity,
                             [&] { return std::move(diagnostic.message); });
        }
        return findings.take(files);
}

}  // namespace sockbroker
