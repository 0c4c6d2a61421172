// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/monitor.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "broker/base/event.h"
#include "broker/base/json_text.h"
#include "broker/base/printable.h"
#include "broker/base/wall_clock.h"

namespace sockbroker {

struct Monitors::Ring {
        std::deque<std::string> lines;
        std::size_t bytes = 0;
        std::uint64_t first = 0;  // number of the first of them, counted from the start
        std::vector<Reader*> readers;
};

namespace {

using Json = JsonText;

constexpr std::size_t kMaxMessage = 4096;

Json text_or_null(std::string_view text) {
        return text.empty() ? Json(nullptr) : Json(text);
}

Json cookie_or_null(std::uint64_t cookie) {
        return cookie == 0 ? Json(nullptr) : Json(fmt::format("{:016x}", cookie));
}

Json pid_or_null(pid_t pid) {
        return pid > 0 ? Json(pid) : Json(nullptr);
}

Json old_owner(const Entry& entry) {
        if (entry.action != Action::kHandover) {
                return nullptr;
        }
        return Json({{"unit", text_or_null(entry.old_unit)},
                     {"uid", entry.old_uid},
                     {"pid", pid_or_null(entry.old_pid)},
                     {"cookie", cookie_or_null(entry.old_cookie)}});
}

std::string line_of(std::string_view action, const Entry& entry, const Json& count) {
        const std::string message = printable(std::string_view(entry.message).substr(0, kMaxMessage));
        return Json({{"time", wall_usec()},
                     {"action", action},
                     {"priority", entry.priority},
                     {"service", text_or_null(entry.service)},
                     {"result", text_or_null(entry.result)},
                     {"rule", text_or_null(entry.rule)},
                     {"cookie", cookie_or_null(entry.cookie)},
                     {"protocol", text_or_null(entry.protocol)},
                     {"bound", text_or_null(entry.bound)},
                     {"unit", text_or_null(entry.unit)},
                     {"uid", entry.has_peer ? Json(entry.uid) : Json(nullptr)},
                     {"pid", entry.has_peer ? pid_or_null(entry.pid) : Json(nullptr)},
                     {"old", old_owner(entry)},
                     {"count", count},
                     {"message", message}})
                       .text() +
               "\n";
}

}  // namespace

Monitors::Monitors() : ring_(std::make_shared<Ring>()) {}

Monitors::Reader::Reader(std::shared_ptr<Ring> ring) : ring_(std::move(ring)) {
        next_ = ring_->first + ring_->lines.size();
        ring_->readers.push_back(this);
}

Monitors::Reader::~Reader() {
        std::erase(ring_->readers, this);
        if (ring_->readers.empty()) {
                ring_->first += ring_->lines.size();
                ring_->lines = {};
                ring_->bytes = 0;
        }
}

std::string Monitors::Reader::take(std::size_t room) {
        std::string text = std::exchange(begin_, {});
        if (next_ < ring_->first) {
                const auto missed = ring_->first - next_;
                text += line_of("missed",
                                {.priority = 4,
                                 .message = fmt::format(
                                         "{} events of all services were missed: this reader is too slow", missed)},
                                missed);
                next_ = ring_->first;
        }
        for (auto at = next_ - ring_->first; at < ring_->lines.size(); at++, next_++) {
                if (text.size() + ring_->lines[at].size() > room) {
                        break;
                }
                text += ring_->lines[at];
        }
        waits_ = text.empty();
        return text;
}

std::shared_ptr<Monitors::Reader> Monitors::open() {
        if (ring_->readers.size() >= kMaxReaders) {
                return nullptr;
        }
        auto reader = std::make_shared<Reader>(ring_);
        // Whoever waits for something to happen knows by this line that it will be seen.
        reader->begin_ = line_of("begin", {.message = "what happens from here on is shown"}, nullptr);
        return reader;
}

bool Monitors::any() const {
        return !ring_->readers.empty();
}

void Monitors::tell(const Entry& entry) {
        if (any()) {
                add(line_of(action_name(entry.action), entry, nullptr));
        }
}

void Monitors::tell_no_socket(const std::string& service, std::uint64_t count, std::string_view message) {
        if (any()) {
                add(line_of("no-socket", {.priority = 5, .message = std::string(message), .service = service}, count));
        }
}

void Monitors::add(std::string line) {
        ring_->bytes += line.size();
        ring_->lines.push_back(std::move(line));
        while (ring_->lines.size() > kMaxLines || ring_->bytes > kMaxBytes) {
                ring_->bytes -= ring_->lines.front().size();
                ring_->lines.pop_front();
                ring_->first++;
        }
        for (Reader* reader : ring_->readers) {
                if (std::exchange(reader->waits_, false) && reader->wake_) {
                        reader->wake_();
                }
        }
}

}  // namespace sockbroker
