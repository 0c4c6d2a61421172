// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/ctl/silent_files.h"

#include <cerrno>
#include <string_view>

#include "broker/policy/read_files.h"

namespace sockbroker::ctl {

namespace {

// Whether there is one. What is wrong with it says whoever reads it for its text.
bool read_one(const std::string& path, const Touch& touch) {
        touch(path);
        const auto text = read_whole_file(path);
        return text || text.error().errnum != ENOENT;
}

}  // namespace

std::chrono::microseconds patience_of(const Options& options) {
        return options.timeout_given ? options.timeout : kShortTimeout;
}

std::optional<Diagnostic> first_silent(const std::vector<std::string>& config_dirs,
                                       const std::vector<std::string>& named, Deadline deadline) {
        const auto text = told_until(deadline, [&](int pipe) {
                // Each path before it is touched, ended by a NUL; an empty one is the end.
                const Touch touch = [pipe](const std::string& path) { write_record(pipe, path + '\0'); };
                for (const auto& dir : config_dirs) {
                        if (read_one(dir + "/sockbrokerd.conf", touch)) {
                                break;
                        }
                }
                (void)read_drop_ins(config_dirs, "sockbrokerd.conf.d", touch);
                if (named.empty()) {
                        (void)read_drop_ins(config_dirs, "conf.d", touch);
                }
                for (const auto& path : named) {
                        (void)read_one(path, touch);
                }
                touch({});
        });
        if (!text || text->empty() || Deadline::clock::now() < deadline) {
                return std::nullopt;
        }
        const std::string_view whole = std::string_view(*text).substr(0, text->size() - 1);
        const auto last = whole.substr(whole.rfind('\0') + 1);
        if (last.empty()) {
                return std::nullopt;  // just in time
        }
        return Diagnostic{.file = std::string(last),
                          .severity = Severity::kError,
                          .message =
                                  "no answer within --timeout=, mend the file system that has it or move it to "
                                  "another"};
}

}  // namespace sockbroker::ctl
