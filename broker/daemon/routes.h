// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which routes are to stand: those of LocalRoutes= for as long as the policy has them, those of Announce= while their
// services are up and not drained. Decides, and tells sockbroker-routes, which makes them; keeps what that has said.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "broker/audit/audit.h"
#include "broker/base/turns.h"
#include "broker/daemon/announce_units.h"
#include "broker/daemon/damping.h"
#include "broker/daemon/durable_writer.h"
#include "broker/daemon/route_link.h"
#include "broker/daemon/route_memory.h"
#include "broker/daemon/route_plan.h"
#include "broker/daemon/service_entries.h"
#include "broker/registry/registry.h"

namespace sockbroker {

struct RoutesOptions {
        std::string socket_path;  // of sockbroker-routes
        std::string memory_path;
        Damping::Spans spans;
        std::uint32_t table = 0;  // for people
};

class Routes {
public:
        // `disk`: for what is to outlive a loss of power.
        Routes(sd_event* event, Worker& disk, RoutesOptions options, const Registry& registry, ServiceEntries& entries,
               Audit& audit);
        ~Routes();
        Routes(const Routes&) = delete;
        Routes& operator=(const Routes&) = delete;

        // Of the policy that is in force from now on.
        void take(std::shared_ptr<const RoutePlan> plan);
        // From now on, whatever policy says, there are none: so that sockbroker-routes, which runs in the network
        // namespace that is served, lets it end.
        void leave();
        // Sockets of the service came or went.
        void look_at(const std::string& service);

        struct OfService {
                std::optional<bool> announced;  // in the kernel; none: policy does not ask for it
                bool drained = false;
        };
        [[nodiscard]] OfService of(const std::string& service) const;
        [[nodiscard]] RouteSum sum() const;
        [[nodiscard]] std::vector<std::string> warnings() const;

        // `done` once the kernel has it, or it is clear that this takes longer; and for drain() once it is on the disk,
        // or cannot be: then it holds for this broker.
        using Done = std::function<void(bool in_kernel)>;
        using Drained = std::function<void(bool in_kernel, const Result<void>& kept)>;
        void drain(const std::string& service, bool drained, Drained done);
        // Until the next policy nothing is announced.
        void withdraw_all(Done done);
        // It was not to be, after all.
        void stay();

private:
        struct Service {
                Damping damping;
                std::optional<bool> up;         // as far as anybody knows
                std::string why;                // it is not
                std::int64_t unknown_usec = 0;  // since when nobody knows
        };
        struct Waiting {
                std::uint32_t number = 0;  // of the list that a report has to be of
                std::int64_t until_usec = 0;
                Done done;
        };
        struct OfKind {
                RouteLink::List told;
                std::uint32_t number = 0;
                std::uint32_t acknowledged = 0;
                std::optional<routes::Report> report;
                std::string refused;  // what was said of it
        };
        void evaluate();
        void evaluate(const std::string& name, const RoutePlan::Announcing& announcing, Service& service);
        struct Judgement {
                std::optional<bool> up;
                std::string why;
                std::int64_t since_usec = 0;
        };
        [[nodiscard]] Judgement judge_one(const std::string& name, Protocol protocol, Family family);
        [[nodiscard]] Judgement judge(const std::string& name, const RoutePlan::Announcing& announcing);
        void settle();
        void tell(routes::Kind kind, RouteLink::List list);
        void schedule(std::int64_t at_usec);
        void reported(const routes::Report& report);
        void tell_of_refused(const routes::Report& report, OfKind& state);
        void tell_of_services(const routes::Report& report);
        void when_in_kernel(Done done);
        void finish_waiting(bool all);
        [[nodiscard]] OfKind& kind(routes::Kind of) { return kinds_.at(static_cast<std::size_t>(of)); }
        [[nodiscard]] const OfKind& kind(routes::Kind of) const { return kinds_.at(static_cast<std::size_t>(of)); }

        sd_event* event_;
        RoutesOptions options_;
        const Registry& registry_;
        ServiceEntries& entries_;
        Audit& audit_;
        RouteMemory memory_;
        DurableWriter saves_;
        std::uint64_t changes_ = 0;  // of memory_
        std::shared_ptr<const RoutePlan> plan_;
        std::map<std::string, Service, std::less<>> services_;  // of the plan
        std::set<std::string, std::less<>> to_look_at_;
        bool look_at_all_ = false;
        bool told_any_ = false;            // sockbroker-routes is spoken to
        bool withdrawn_ = false;           // withdraw_all()
        bool left_ = false;                // leave()
        std::int64_t ask_until_usec_ = 0;  // so long the first list waits for what units do
        std::int64_t rest_until_usec_ = 0;
        std::int64_t look_at_all_usec_ = 0;             // at the latest
        std::set<std::string, std::less<>> announced_;  // in the list that was told last
        std::set<std::string, std::less<>> standing_;   // in the one that the kernel has
        bool standing_known_ = false;
        std::array<OfKind, routes::kKinds> kinds_;
        std::vector<Waiting> waiting_;
        std::string lost_;  // why nobody can be told; empty: somebody can
        std::int64_t due_usec_ = 0;
        OwnedSource timer_;
        std::unique_ptr<AnnounceUnits> units_;  // once something is to be announced
        RouteLink link_;
};

}  // namespace sockbroker
