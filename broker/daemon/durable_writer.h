// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A small file that outlives a loss of power, written by a worker: the loop waits for no disk. Of several texts that
// come while one is written the last alone counts.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "broker/base/result.h"
#include "broker/daemon/worker.h"

namespace sockbroker {

class DurableWriter {
public:
        using Done = std::function<void(const Result<void>&)>;

        // The worker is this one's alone.
        DurableWriter(Worker& worker, std::string path) : worker_(worker), path_(std::move(path)) {}
        DurableWriter(const DurableWriter&) = delete;
        DurableWriter& operator=(const DurableWriter&) = delete;

        void write(std::string text);
        // After a write(): when the disk has that text or a later one, or could not take it.
        void when_written(Done done);

private:
        void begin();
        void written(const Result<void>& result);

        Worker& worker_;
        const std::string path_;
        bool busy_ = false;
        std::optional<std::string> next_;
        std::vector<Done> done_;       // of what is being written
        std::vector<Done> done_next_;  // and of next_
};

}  // namespace sockbroker
