// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What of routes a broker has to know of the one before it: which services are drained, and whether routes may stand.
// A small file beside the policy last taken. This never waits for a disk: what is new goes into a file beside that one
// (.now), which outlives the broker, and may be lost or cut short with the machine's power; whoever can wait writes the
// same into the file itself, which then counts alone.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "broker/base/result.h"

namespace sockbroker {

class RouteMemory {
public:
        // Drained services, and since when (microseconds since the epoch).
        using Drained = std::map<std::string, std::int64_t, std::less<>>;

        // What the files say; one that is not there, or says what this version does not know, says nothing. Of one that
        // cannot be read nobody knows: see unread().
        explicit RouteMemory(std::string path);

        [[nodiscard]] const Drained& drained() const { return drained_; }
        [[nodiscard]] bool may_stand() const { return may_stand_; }
        // Why the file could not be read, for as long as it was not written anew; empty: it could. Where it could not,
        // nothing is known to be drained, and routes may stand.
        [[nodiscard]] const std::string& unread() const { return unread_; }

        // Errors: it holds for this broker, but the next one will not know unless a later one of these is written.
        [[nodiscard]] Result<void> drain(const std::string& service, std::int64_t since_usec);
        [[nodiscard]] Result<void> undrain(const std::string& service);
        [[nodiscard]] Result<void> set_may_stand(bool may_stand);

        // Called with the whole text of the file after each change. It has to be durable, and then saved() to be called
        // if there was no change meanwhile.
        using Save = std::function<void(std::string text)>;
        void when_changed(Save save);
        void saved();

private:
        [[nodiscard]] Result<void> write();
        [[nodiscard]] Result<void> write_now(const std::string& text) const;
        [[nodiscard]] std::string text() const;
        void read(std::string_view text);

        std::string path_;
        std::string now_;
        bool only_now_ = false;  // the file itself is older
        Save save_;
        Drained drained_;
        bool may_stand_ = false;
        bool written_ = true;  // the file says all of this
        std::string unread_;
};

}  // namespace sockbroker
