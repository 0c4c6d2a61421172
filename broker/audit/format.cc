// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See format.h. The fields and their names are listed in sockbrokerd(8).
#include "broker/audit/format.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include "broker/base/printable.h"

namespace sockbroker {

std::vector<std::string> journal_fields(const Entry& entry) {
        std::vector<std::string> fields;
        const auto add = [&](std::string_view name, std::string_view value) {
                if (!value.empty()) {
                        fields.push_back(fmt::format("{}={}", name, printable(value)));
                }
        };
        const auto add_cookie = [&](std::string_view name, std::uint64_t cookie) {
                if (cookie != 0) {
                        fields.push_back(fmt::format("{}={:016x}", name, cookie));
                }
        };
        // journalctl shows what is UTF-8 as it is.
        fields.push_back(fmt::format("MESSAGE={}", printable(entry.message)));
        fields.push_back(fmt::format("MESSAGE_ID={}", message_id(entry.action)));
        fields.push_back(fmt::format("PRIORITY={}", entry.priority));
        add("SOCKBROKER_SERVICE", entry.service);
        add("SOCKBROKER_ACTION", action_name(entry.action));
        add("SOCKBROKER_RESULT", entry.result);
        add("SOCKBROKER_RULE", entry.rule);
        add_cookie("SOCKBROKER_COOKIE", entry.cookie);
        add("SOCKBROKER_PROTOCOL", entry.protocol);
        add("SOCKBROKER_BOUND", entry.bound);
        add("SOCKBROKER_UNIT", entry.unit);
        if (entry.has_peer) {
                fields.push_back(fmt::format("SOCKBROKER_UID={}", entry.uid));
                if (entry.pid > 0) {
                        fields.push_back(fmt::format("OBJECT_PID={}", entry.pid));
                }
        }
        if (entry.action == Action::kHandover) {
                add("SOCKBROKER_OLD_UNIT", entry.old_unit);
                fields.push_back(fmt::format("SOCKBROKER_OLD_UID={}", entry.old_uid));
                add_cookie("SOCKBROKER_OLD_COOKIE", entry.old_cookie);
                if (entry.old_pid > 0) {
                        fields.push_back(fmt::format("SOCKBROKER_OLD_PID={}", entry.old_pid));
                }
        }
        return fields;
}

std::string stderr_line(const Entry& entry) {
        std::string line = fmt::format("{}: {}", action_name(entry.action), printable(entry.message));
        std::string_view separator = " (";
        const auto add = [&](std::string_view name, std::string_view value) {
                if (!value.empty()) {
                        line += fmt::format("{}{}={}", separator, name, printable(value));
                        separator = ", ";
                }
        };
        add("service", entry.service);
        add("rule", entry.rule);
        if (entry.has_peer) {
                add("uid", std::to_string(entry.uid));
        }
        line += separator == " (" ? "\n" : ")\n";
        return line;
}

bool is_journal_stream(int fd, const char* journal_stream) {
        struct stat status = {};
        return journal_stream != nullptr && ::fstat(fd, &status) == 0 &&
               fmt::format("{}:{}", status.st_dev, status.st_ino) == journal_stream;
}

}  // namespace sockbroker
