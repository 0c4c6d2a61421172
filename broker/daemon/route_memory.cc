// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/route_memory.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include <fmt/format.h>

#include "broker/base/net.h"
#include "broker/base/owned_fd.h"
#include "broker/policy/read_files.h"
#include "broker/protocol/service_name.h"

namespace sockbroker {

namespace {

constexpr std::string_view kStand = "routes";
constexpr std::string_view kDrained = "drained ";

}  // namespace

RouteMemory::RouteMemory(std::string path) : path_(std::move(path)) {
        const auto text = read_whole_file(path_);
        if (text) {
                read(*text);
        } else if (text.error().errnum != ENOENT) {
                unread_ = text.error().text();
                may_stand_ = true;
        }
}

// Lines "routes" and "drained NAME USEC".
void RouteMemory::read(std::string_view text) {
        while (!text.empty()) {
                const auto end = text.find('\n');
                auto line = text.substr(0, end);
                text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
                may_stand_ = may_stand_ || line == kStand;
                if (!line.starts_with(kDrained)) {
                        continue;
                }
                line.remove_prefix(kDrained.size());
                const auto blank = line.find(' ');
                const auto since =
                        parse_number(blank == std::string_view::npos ? "" : line.substr(blank + 1), INT64_MAX);
                if (const auto name = line.substr(0, blank); since && valid_service_name(name)) {
                        drained_[std::string(name)] = static_cast<std::int64_t>(*since);
                }
        }
}

Result<void> RouteMemory::drain(const std::string& service, std::int64_t since_usec) {
        drained_.try_emplace(service, since_usec);
        return write();
}

Result<void> RouteMemory::undrain(const std::string& service) {
        drained_.erase(service);
        return write();
}

Result<void> RouteMemory::set_may_stand(bool may_stand) {
        return std::exchange(may_stand_, may_stand) == may_stand && written_ ? Result<void>() : write();
}

Result<void> RouteMemory::write() {
        auto done = write_file();
        written_ = done.has_value();
        if (written_) {
                unread_.clear();
        }
        return done;
}

// Renamed and not synced: the loop waits for no disk. After a loss of power the file is the one of before or this one.
Result<void> RouteMemory::write_file() const {
        std::string text = may_stand_ ? fmt::format("{}\n", kStand) : std::string();
        for (const auto& [name, since] : drained_) {
                text += fmt::format("{}{} {}\n", kDrained, name, since);
        }
        const auto aside = path_ + ".new";
        (void)unlink(aside.c_str());
        const OwnedFd fd(open(aside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
        const ssize_t size = fd ? ::write(fd.get(), text.data(), text.size()) : -1;
        if (size >= 0 && static_cast<std::size_t>(size) != text.size()) {
                return fail(ENOSPC, fmt::format("cannot write {}", path_));
        }
        if (size < 0 || std::rename(aside.c_str(), path_.c_str()) != 0) {
                return fail_errno(fmt::format("cannot write {}", path_));
        }
        return {};
}

}  // namespace sockbroker
