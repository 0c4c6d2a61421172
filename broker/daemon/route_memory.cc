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
constexpr std::string_view kEnd = "end\n";  // of what was not cut short

}  // namespace

RouteMemory::RouteMemory(std::string path) : path_(std::move(path)), now_(path_ + ".now") {
        if (const auto newer = read_whole_file(now_); newer && newer->ends_with(kEnd)) {
                only_now_ = true;
                read(*newer);
                return;
        }
        const auto text = read_whole_file(path_);
        if (text) {
                read(*text);
        } else if (text.error().errnum != ENOENT) {
                unread_ = text.error().text();
                may_stand_ = true;
        }
}

// Lines "routes" and "drained NAME USEC", and the end.
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

void RouteMemory::when_changed(Save save) {
        save_ = std::move(save);
        if (only_now_) {
                save_(text());
        }
}

void RouteMemory::saved() {
        (void)unlink(now_.c_str());
        only_now_ = false;
        unread_.clear();
}

Result<void> RouteMemory::write() {
        const auto all = text();
        auto done = write_now(all);
        written_ = done.has_value();
        only_now_ = written_;
        if (written_) {
                unread_.clear();
        } else {
                (void)unlink(now_.c_str());  // it is older than what is being saved
        }
        if (save_) {
                save_(all);
        }
        return done;
}

std::string RouteMemory::text() const {
        std::string text = may_stand_ ? fmt::format("{}\n", kStand) : std::string();
        for (const auto& [name, since] : drained_) {
                text += fmt::format("{}{} {}\n", kDrained, name, since);
        }
        return text.append(kEnd);
}

Result<void> RouteMemory::write_now(const std::string& text) const {
        const auto aside = now_ + ".new";
        (void)unlink(aside.c_str());
        const OwnedFd fd(open(aside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
        const ssize_t size = fd ? ::write(fd.get(), text.data(), text.size()) : -1;
        if (size >= 0 && static_cast<std::size_t>(size) != text.size()) {
                return fail(ENOSPC, fmt::format("cannot write {}", now_));
        }
        if (size < 0 || std::rename(aside.c_str(), now_.c_str()) != 0) {
                return fail_errno(fmt::format("cannot write {}", now_));
        }
        return {};
}

}  // namespace sockbroker
