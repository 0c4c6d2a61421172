// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Errors and warnings about a text, by file and line. A file that is wrong in every line (saved with other line ends)
// may have a million mistakes: so many are counted, but only the first of each file are kept. Pure.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "broker/policy/diagnostic.h"
#include "broker/policy/policy.h"

namespace sockbroker {

class Findings {
public:
        static constexpr std::size_t kMaxPerFile = 1000;  // errors, and as many warnings
        static constexpr std::size_t kMaxInAll = 10'000;

        // `message` is asked for the text only if it is kept.
        template <class Message>
        void add(Where where, Severity severity, Message message) {
                errors_ += severity == Severity::kError ? 1 : 0;
                if (is_kept(where, severity)) {
                        keep(where, severity, std::string(message()));
                }
        }
        void error(Where where, std::string message) {
                add(where, Severity::kError, [&] { return std::move(message); });
        }

        [[nodiscard]] std::size_t errors() const { return errors_; }  // those too that are not kept

        // In the order of files and lines; after those of a file what was left out of it. Nothing is kept afterwards.
        [[nodiscard]] std::vector<Diagnostic> take(const std::vector<std::string>& files);

private:
        struct Finding {
                unsigned line = 0;
                std::size_t number = 0;  // so that those of one line stay in their order
                std::string message;

                [[nodiscard]] bool operator<(const Finding& other) const {
                        return std::tie(line, number) < std::tie(other.line, other.number);
                }
        };
        struct OfFile {
                std::vector<Finding> first;  // a heap with the last of them on top
                std::size_t left_out = 0;
        };

        [[nodiscard]] bool is_kept(Where where, Severity severity);
        void keep(Where where, Severity severity, std::string message);

        std::map<std::pair<std::uint32_t, Severity>, OfFile> files_;
        std::size_t errors_ = 0;
        std::size_t kept_ = 0;
        std::size_t number_ = 0;
};

// The same bounds for a list that others have made.
[[nodiscard]] std::vector<Diagnostic> first_of_each_file(std::vector<Diagnostic> diagnostics);

}  // namespace sockbroker
