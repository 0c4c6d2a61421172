// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/answer_records.h"

#include <stdexcept>
#include <string_view>

#include <fmt/format.h>

#include "broker/protocol/label.h"
#include "broker/protocol/message.h"

namespace sockbroker {

void AnswerRecords::begin(Answer answer) {
        answer_ = std::move(answer);
        record_.clear();
        lines_.clear();
        taken_ = 0;
        is_last_ = all_sent_ = false;
}

const std::string& AnswerRecords::current() {
        if (record_.empty()) {
                make();
        }
        return record_;
}

void AnswerRecords::sent() {
        record_.clear();
        all_sent_ = is_last_;
}

void AnswerRecords::make() {
        if (answer_.feed != nullptr) {
                record_ = answer_.feed->take(kMaxBytes);
                return;
        }
        while (more_lines()) {
                const auto rest = std::string_view(lines_).substr(taken_);
                const std::size_t room = kMaxBytes - record_.size();
                const std::size_t end = rest.size() <= room ? rest.size()
                                        : room == 0         ? 0
                                                            : rest.rfind('\n', room - 1) + 1;
                if (end == 0) {  // npos + 1, too: none of them fits
                        if (record_.empty()) {
                                throw std::length_error("a line that no record can hold");
                        }
                        return;
                }
                record_ += rest.substr(0, end);
                taken_ += end;
                if (taken_ < lines_.size()) {
                        return;
                }
        }
        if (record_.empty()) {
                record_ = last();
                is_last_ = true;
        }
}

std::string AnswerRecords::last() const {
        if (labels_) {
                return format_label_answer(answer_.code, answer_.message);
        }
        auto record = format_result(answer_.code, answer_.message, answer_.warnings);
        return answer_.cause.empty() ? record : record + fmt::format("CAUSE={}\n", answer_.cause);
}

// Whether lines_ holds some that are in no record yet.
bool AnswerRecords::more_lines() {
        while (taken_ == lines_.size() && answer_.rows) {
                taken_ = 0;
                auto made = answer_.rows();
                if (!made) {
                        answer_.code = made.error().code;
                        answer_.message = made.error().message;
                }
                auto lines = made ? std::move(*made) : std::nullopt;
                if (!lines) {
                        answer_.rows = nullptr;
                }
                lines_ = std::move(lines).value_or("");
        }
        return taken_ < lines_.size();
}

}  // namespace sockbroker
