// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Where a verb's result goes: standard output, or a pager on a terminal. For a pager everything is written to
// an unlinked file first: the broker drops a reader that takes nothing for five seconds, and a person reads
// slower than that.
#pragma once

#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include "broker/ctl/options.h"

namespace sockbroker::ctl {

class Output {
public:
        explicit Output(const Options& options);

        void write(std::string_view text);
        [[nodiscard]] bool colour() const { return colour_; }
        // Columns that a table may take; 0: as many as it wants.
        [[nodiscard]] std::size_t width() const { return width_; }
        // Shows what was written. `status` as it is, or kExitFailed if something could not be written.
        [[nodiscard]] int finish(int status);

private:
        struct Close {
                void operator()(std::FILE* file) const { std::fclose(file); }
        };

        bool colour_ = false;
        std::size_t width_ = 0;
        std::unique_ptr<std::FILE, Close> spool_;  // none: straight to standard output
};

// A message for the person on standard error: "sockbrokerctl: MESSAGE".
void complain(std::string_view message);

inline constexpr std::string_view kNoAnswer = "no-answer";

// What went wrong, for --json: the first thing that was complained of, under a word for programs.
struct Failure {
        std::string result = "failed";  // a code of docs/protocol.md, or unreachable, stopped, no-answer, usage
        int errnum = 0;
        std::string message;
};
// Complains, under another word than "failed".
void complain_as(std::string_view result, int errnum, std::string_view message);
[[nodiscard]] const Failure& failure();
[[nodiscard]] bool has_output();  // something was written to standard output, or to the pager

}  // namespace sockbroker::ctl
