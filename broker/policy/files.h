// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Finds and reads what parse_policy() takes: conf.d/*.conf of the four directories, merged by file name, with
// masking; sockbrokerd.conf and sockbrokerd.conf.d/ for the broker's own limits; and the copy of the policy last taken.
#pragma once

#include <string>
#include <vector>

#include "broker/base/result.h"
#include "broker/policy/parse.h"

namespace sockbroker {

struct FoundFiles {
        std::vector<PolicyFile> files;        // sorted by file name, masked ones left out
        std::vector<Diagnostic> diagnostics;  // unreadable, not a regular file, too large, a link to nowhere
        bool any = false;                     // there is a file at all, though it may be empty or mask another
};

// conf.d/*.conf of each directory; a directory that does not exist is empty.
[[nodiscard]] FoundFiles read_policy_files(const std::vector<std::string>& config_dirs);

// Of the paths and texts of files, by which one policy is told from another. Not for security.
[[nodiscard]] std::string digest_of(const std::vector<PolicyFile>& files);

// read_policy_files() and parse_policy() together: what `verify`, start and reload do.
[[nodiscard]] ParsedPolicy load_policy(const std::vector<std::string>& config_dirs, const PolicyLimits& limits);

// The copy of the policy last taken: one file, written aside, synced and renamed. Texts are kept to the byte, with
// the paths they came from, so that diagnostics and rules still name the origin.
[[nodiscard]] Result<void> write_policy_copy(const std::string& path, const std::vector<PolicyFile>& files);
[[nodiscard]] Result<std::vector<PolicyFile>> read_policy_copy(const std::string& path);

// How the routes of services look. Numbers of linux/rtnetlink.h.
struct RouteConfig {
        std::uint32_t protocol = 83;         // rtm_protocol: by it the broker knows its own
        std::uint32_t announce_table = 153;  // read by routing daemons and by no rule
        std::int64_t up_usec = 1'000'000;    // how long a service has to be up before it is announced
        std::int64_t down_usec = 0;          // and down before that is withdrawn
};

// [Broker] of sockbrokerd.conf and its drop-ins.
struct BrokerConfig {
        PolicyLimits limits;
        std::uint32_t max_sockets = 4096;
        // Requests of one uid, or for one service, in an interval; 0: no limit. Far more than a machine of honest
        // services sends in an hour, and 20 seconds of all that one core can do.
        std::int64_t rate_interval_usec = 60'000'000;
        std::uint32_t rate_burst = 200'000;
        std::uint32_t notify_burst = 10'000;  // messages of one uid to the datagram socket, which is one queue for all
        RouteConfig routes;
};

struct ParsedBrokerConfig {
        BrokerConfig config;  // defaults where there are errors
        std::vector<Diagnostic> diagnostics;
};

[[nodiscard]] ParsedBrokerConfig load_broker_config(const std::vector<std::string>& config_dirs);

}  // namespace sockbroker
