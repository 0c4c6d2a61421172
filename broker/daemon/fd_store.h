// SPDX-License-Identifier: LGPL-2.1-or-later
//
// PID 1's store of descriptors, sd_pid_notify_with_fds(3): what lies there is given back when the service starts again.
// A thread speaks to PID 1, for that may be busy, and its queue full. Whoever was not started by it has no such store.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "broker/base/owned_fd.h"

namespace sockbroker {

class FdStore {
public:
        FdStore();
        ~FdStore();  // what is queued is told, for a second at most
        FdStore(const FdStore&) = delete;
        FdStore& operator=(const FdStore&) = delete;

        // As many as the shipped unit lets PID 1 keep for it (FileDescriptorStoreMax=), which compares each new one
        // with all that it has, and all again at each daemon-reload: with 4096 that takes it some seconds.
        static constexpr std::size_t kUsualCapacity = 4096;

        [[nodiscard]] bool exists() const { return exists_; }
        // How many it takes: $FDSTORE, which systemd sets from version 254 on.
        [[nodiscard]] static std::size_t capacity();
        // A duplicate of the descriptor is kept under this name, whether or not anybody is at its other end. False: too
        // much waits to be told already.
        [[nodiscard]] bool add(const std::string& name, int fd);
        void remove(const std::string& name);  // all of this name

private:
        struct Item {
                std::string name;
                OwnedFd fd;  // none: to be removed
        };
        struct State {
                std::mutex mutex;
                std::condition_variable wake;
                std::deque<Item> queue;
                bool stopping = false;
                bool stopped = false;
        };
        static void run(State& state);

        const bool exists_;
        std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace sockbroker
