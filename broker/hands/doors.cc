// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/doors.h"

#include <fcntl.h>

#include <utility>

#include "broker/protocol/peek.h"

namespace sockbroker::hands {

namespace {

// Doors that were full of what is kept, and wait for something in it. One user cannot do that to all of them: his
// descriptors on their way are counted, 524,288 of a user of systemd's default, and each door has up to 32,768
// connections with one at least.
constexpr std::size_t kMaxEnding = 24;

Result<void> make_ready(int listener) {
        if (auto prepared = prepare_for_peeking(listener); !prepared) {
                return prepared;
        }
        // One that was passed may block, although those of systemd do not: accepting until nobody waits would hang the
        // door.
        const int flags = fcntl(listener, F_GETFL);
        if (flags < 0 || fcntl(listener, F_SETFL, flags | O_NONBLOCK) != 0) {
                return fail_errno("cannot make a listening socket of the broker non-blocking");
        }
        return {};
}

}  // namespace

Doors::Doors(sd_event* event, Zygote& zygote, Roster& roster, int control, int labels, Hooks hooks)
        : zygote_(zygote),
          roster_(roster),
          control_(control),
          labels_(labels),
          hooks_(std::move(hooks)),
          door_(event, control, labels,
                {.connected = [this](Connection one) { hooks_.connected(std::move(one)); },
                 .refused = [this](const RefusedReport& report) { hooks_.refused(report); },
                 .ended = [this] { ended(); }}) {
        ending_.reserve(kMaxEnding);
}

Result<void> Doors::start() {
        if (control_ < 0) {
                return {};
        }
        for (const int listener : {control_, labels_}) {
                if (auto made = listener < 0 ? Result<void>() : make_ready(listener); !made) {
                        return made;
                }
        }
        open();
        return {};
}

void Doors::reopen() noexcept {
        if (!settled()) {
                open();
        }
}

bool Doors::forked(std::uint32_t child, pid_t pid) noexcept {
        if (child != child_) {
                return false;
        }
        if (pid == 0) {
                child_ = 0;
                hooks_.missing();
        }
        return true;
}

bool Doors::exited(std::uint32_t child) {
        if (child == child_) {
                door_.finish();  // which ends with ended()
        }
        return std::erase(ending_, child) != 0;
}

void Doors::open() noexcept {
        if (ending_.size() >= kMaxEnding) {
                return hooks_.missing();  // until one has ended
        }
        const std::uint32_t child = roster_.next_child();
        if (succeeds([&] { child_ = door_.open(zygote_, child) ? child : 0; }) && child_ != 0) {
                return;
        }
        child_ = 0;
        hooks_.missing();
}

void Doors::ended() {
        if (child_ != 0) {
                ending_.push_back(child_);
                zygote_.kill(std::exchange(child_, 0));
                open();
        }
}

}  // namespace sockbroker::hands
