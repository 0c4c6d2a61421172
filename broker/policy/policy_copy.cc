// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The copy of the policy last taken. A line with the format and the number of files, then for each file a line with
// the lengths of path and text and both to the byte, then "end". A file that was cut short cannot pass for a whole one.
#include <cerrno>
#include <optional>

#include <fmt/format.h>

#include "broker/base/net.h"
#include "broker/policy/durable_file.h"
#include "broker/policy/read_files.h"

namespace sockbroker {

namespace {

constexpr std::string_view kFormat = "sockbroker-policy-copy 1";
constexpr std::string_view kEnd = "end\n";
constexpr std::size_t kMaxCopyBytes = 4 * kMaxFileBytes;

Result<void> append_records(const AppendText& append, const std::vector<PolicyFile>& files) {
        if (auto done = append(fmt::format("{} {}\n", kFormat, files.size())); !done) {
                return done;
        }
        for (const auto& file : files) {
                if (auto done = append(fmt::format("{} {}\n{}", file.path.size(), file.text.size(), file.path));
                    !done) {
                        return done;
                }
                if (auto done = append(file.text); !done) {
                        return done;
                }
        }
        return append(kEnd);
}

// Takes the copy apart from the front.
class Reader {
public:
        explicit Reader(std::string_view rest) : rest_(rest) {}

        std::optional<std::string_view> line() {
                const auto end = rest_.find('\n');
                return end == std::string_view::npos ? std::nullopt : bytes(end + 1, 1);
        }
        std::optional<std::string_view> bytes(std::size_t count, std::size_t drop = 0) {
                if (count > rest_.size()) {
                        return std::nullopt;
                }
                const auto part = rest_.substr(0, count - drop);
                rest_.remove_prefix(count);
                return part;
        }
        [[nodiscard]] std::string_view rest() const { return rest_; }

private:
        std::string_view rest_;
};

std::optional<std::size_t> number(std::string_view text) {
        return parse_number(text, kMaxCopyBytes);
}

std::optional<PolicyFile> read_record(Reader& reader) {
        const auto header = reader.line();
        const auto space = header ? header->find(' ') : std::string_view::npos;
        if (!header || space == std::string_view::npos) {
                return std::nullopt;
        }
        const auto path_size = number(header->substr(0, space));
        const auto text_size = number(header->substr(space + 1));
        if (!path_size || !text_size) {
                return std::nullopt;
        }
        const auto path = reader.bytes(*path_size);
        const auto text = reader.bytes(*text_size);
        if (!path || !text) {
                return std::nullopt;
        }
        return PolicyFile{std::string(*path), std::string(*text)};
}

std::optional<std::vector<PolicyFile>> read_records(std::string_view data) {
        Reader reader(data);
        const auto first = reader.line();
        if (!first || !first->starts_with(kFormat) || first->size() <= kFormat.size() + 1) {
                return std::nullopt;
        }
        const auto count = number(first->substr(kFormat.size() + 1));
        if (!count) {
                return std::nullopt;
        }
        std::vector<PolicyFile> files;
        for (std::size_t i = 0; i < *count; i++) {
                auto file = read_record(reader);
                if (!file) {
                        return std::nullopt;
                }
                files.push_back(std::move(*file));
        }
        return reader.rest() == kEnd ? std::optional(std::move(files)) : std::nullopt;
}

}  // namespace

Result<void> write_policy_copy(const std::string& path, const std::vector<PolicyFile>& files) {
        const auto done = replace_file(path, [&](const AppendText& append) { return append_records(append, files); });
        return done ? done
                    : fail(done.error().errnum,
                           fmt::format("cannot keep a copy of the policy in {} ({})", path, done.error().message));
}

Result<std::vector<PolicyFile>> read_policy_copy(const std::string& path) {
        const auto data = read_whole_file(path, kMaxCopyBytes);
        if (!data) {
                return fail(data.error().errnum,
                            fmt::format("no copy of a policy in {} ({})", path, data.error().message));
        }
        auto files = read_records(*data);
        if (!files) {
                return fail(EBADMSG,
                            fmt::format("the copy of the policy in {} is damaged, mend the policy and reload", path));
        }
        return std::move(*files);
}

}  // namespace sockbroker
