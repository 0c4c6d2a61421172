// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One request and its answer over a connection to the control socket. It never waits: whoever has an event loop, or
// poll(2), says when to go on. Knows the records of docs/protocol.md and nothing of what lines mean.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"

namespace sockbroker {

struct ControlAnswer {
        std::string result;  // "ok" or a code of docs/protocol.md
        int errnum = 0;      // ERRNO=, 0 for ok
        std::string message;
        std::vector<std::string> warnings;  // WARNING= lines, which "ok" may carry, for a person
        std::string cause = {};  // CAUSE=, the key of the request that a refusal is about, where that matters
};

class Exchange {
public:
        using OnLine = std::function<void(std::string_view line)>;

        // `connection` and `fds` are borrowed until the request is sent; `path` is for messages.
        Exchange(int connection, std::string path, std::string request, std::vector<int> fds)
                : connection_(connection), path_(std::move(path)), request_(std::move(request)), fds_(std::move(fds)) {}

        struct Step {
                bool moved = false;  // false: nothing more until the connection has events()
                std::optional<ControlAnswer> answer;
        };
        // Sends the request, or reads one record of the answer. `on_line` is called for each line before the RESULT=
        // record, without its new line. Descriptors of any record go to `received`; without it the kernel closes them.
        // An Error means that there will be no answer.
        [[nodiscard]] Result<Step> advance(const OnLine& on_line, std::vector<OwnedFd>* received);

        // For poll(2) or epoll(7): POLLOUT until the request is sent, then POLLIN.
        [[nodiscard]] short events() const;

private:
        [[nodiscard]] Result<Step> send();
        [[nodiscard]] Result<Step> receive(const OnLine& on_line, std::vector<OwnedFd>* received);

        int connection_;
        std::string path_;
        std::string request_;
        std::vector<int> fds_;
        std::string record_;  // room for one; empty: the request is not sent yet
};

}  // namespace sockbroker
