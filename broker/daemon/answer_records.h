// SPDX-License-Identifier: LGPL-2.1-or-later
//
// An answer as it goes over the control socket: records of whole lines, as many as fit, and at the end one with the
// result. Each is made when the one before was sent, so no more than one is ever kept.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include "broker/daemon/answer.h"

namespace sockbroker {

class AnswerRecords {
public:
        static constexpr std::size_t kMaxBytes = std::size_t{64} * 1024;

        // `labels`: the peer speaks as label.h says.
        explicit AnswerRecords(bool labels) : labels_(labels) {}

        void begin(Answer answer);
        [[nodiscard]] Answer& answer() { return answer_; }
        // The one to be sent now. Empty: a feed has nothing, for now. Throws where a line fits into no record.
        [[nodiscard]] const std::string& current();
        [[nodiscard]] bool is_last() const { return is_last_; }  // the current one
        void sent();                                             // the current one was
        [[nodiscard]] bool all_sent() const { return all_sent_; }

private:
        void make();
        [[nodiscard]] std::string last() const;
        [[nodiscard]] bool more_lines();

        const bool labels_;
        Answer answer_;
        std::string record_;
        std::string lines_;      // came at once, and did not all fit into a record
        std::size_t taken_ = 0;  // how much of them is in one
        bool is_last_ = false;
        bool all_sent_ = false;
};

}  // namespace sockbroker
