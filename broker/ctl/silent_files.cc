// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/ctl/silent_files.h"

#include <cerrno>
#include <filesystem>
#include <set>
#include <string_view>
#include <system_error>

#include "broker/policy/read_files.h"

namespace sockbroker::ctl {

namespace {

// Each path before it is touched, ended by a NUL; an empty one is the end.
class Told {
public:
        explicit Told(int pipe) : pipe_(pipe) {}
        void touch(const std::string& path) const { write_record(pipe_, path + '\0'); }
        void end() const { write_record(pipe_, std::string(1, '\0')); }

private:
        int pipe_;
};

// Whether there is one. What is wrong with it says whoever reads it for its text.
bool read_one(const std::string& path, const Told& told) {
        told.touch(path);
        const auto text = read_whole_file(path);
        return text || text.error().errnum != ENOENT;
}

// Those that count, as read_drop_ins() has them.
void read_all(const std::vector<std::string>& config_dirs, std::string_view subdirectory, const Told& told) {
        std::set<std::string> names;
        for (const auto& dir : config_dirs) {
                const std::filesystem::path folder = std::filesystem::path(dir) / subdirectory;
                told.touch(folder);
                std::error_code error;
                std::vector<std::string> paths;
                for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
                     entry.increment(error)) {
                        const auto name = entry->path().filename().string();
                        if (is_drop_in_name(name) && names.insert(name).second) {
                                paths.push_back(entry->path());
                        }
                }
                for (const auto& path : paths) {
                        (void)read_one(path, told);
                }
        }
}

}  // namespace

std::chrono::microseconds patience_of(const Options& options) {
        return options.timeout_given ? options.timeout : kShortTimeout;
}

std::optional<Diagnostic> first_silent(const std::vector<std::string>& config_dirs,
                                       const std::vector<std::string>& named, Deadline deadline) {
        const auto text = told_until(deadline, [&](int pipe) {
                const Told told(pipe);
                for (const auto& dir : config_dirs) {
                        if (read_one(dir + "/sockbrokerd.conf", told)) {
                                break;
                        }
                }
                read_all(config_dirs, "sockbrokerd.conf.d", told);
                if (named.empty()) {
                        read_all(config_dirs, "conf.d", told);
                }
                for (const auto& path : named) {
                        (void)read_one(path, told);
                }
                told.end();
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
