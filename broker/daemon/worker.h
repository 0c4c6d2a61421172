// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A thread for what takes long, so that the event loop goes on: one job at a time, and what is to follow it is called
// on the loop. The thread has no capability and no signals. What a job touches must not be touched by the loop
// meanwhile; whoever gives it the job sees to that.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/base/turns.h"

namespace sockbroker {

class Worker {
public:
        using Job = std::function<void()>;
        using Done = std::function<void(const std::string& failure)>;  // empty: the job came to its end

        [[nodiscard]] static Result<std::unique_ptr<Worker>> start(sd_event* event);
        ~Worker();  // waits for the end of the job; what was to follow it is not called
        Worker(const Worker&) = delete;
        Worker& operator=(const Worker&) = delete;

        // Not before the job before is done.
        void run(Job job, Done done);

private:
        Worker() = default;
        void work();
        void finished();

        std::mutex mutex_;
        std::condition_variable wake_;
        Job job_;  // under the mutex, as stopping_ and failure_
        bool stopping_ = false;
        std::string failure_;
        Done done_;  // of the loop alone
        OwnedFd event_fd_;
        OwnedSource source_;
        std::thread thread_;
};

}  // namespace sockbroker
