// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The broker's side of sockbroker-routes: the lists of prefixes that are to stand, told as fast as they are read and
// again whenever there is somebody new to tell. Never waits; who is not there is looked for again. It is looked for
// only while there is something to say.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "broker/base/net.h"
#include "broker/base/owned_fd.h"
#include "broker/base/turns.h"
#include "broker/routes/wire.h"

namespace sockbroker {

class RouteLink {
public:
        using List = std::shared_ptr<const std::vector<Prefix>>;  // sorted, each once
        struct Hooks {
                // The kernel has what was told by number `report.number`, or had lost some of it.
                std::function<void(const routes::Report& report)> reported;
                // Nobody is there, or nobody any more; told once until somebody was.
                std::function<void(const std::string& why)> lost;
        };
        RouteLink(sd_event* event, std::string path, Hooks hooks);
        RouteLink(const RouteLink&) = delete;
        RouteLink& operator=(const RouteLink&) = delete;

        // From now on these are to stand; the number by which a report will say so.
        std::uint32_t tell(routes::Kind kind, List list);
        // There is nothing to say any more: whoever is there is left.
        void leave();
        [[nodiscard]] bool connected() const { return fd_.valid(); }

private:
        struct OfKind {
                List list;                 // null: nothing to say
                std::uint32_t number = 0;  // of the list
                std::uint32_t sent = 0;    // of the last that was told to the end
        };
        void connect();
        void disconnect(const std::string& why);
        void try_again();
        void write_some();
        [[nodiscard]] bool write_next();
        void read_some();
        void want_to_write(bool want);
        [[nodiscard]] OfKind& kind(routes::Kind of) { return kinds_.at(static_cast<std::size_t>(of)); }

        sd_event* event_;
        std::string path_;
        Hooks hooks_;
        std::array<OfKind, routes::kKinds> kinds_;
        std::uint32_t last_number_ = 0;
        // What is on its way: the list keeps its place, also when another one takes its place meanwhile.
        struct Going {
                routes::Kind kind = routes::Kind::kLocal;
                List list;
                std::uint32_t number = 0;
                std::size_t next = 0;
                bool begun = false;
        };
        std::unique_ptr<Going> going_;
        bool lost_told_ = false;
        OwnedFd fd_;
        OwnedSource io_;  // ends before what it watches
        OwnedSource again_;
};

}  // namespace sockbroker
