// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/attachment.h"

#include <sys/stat.h>

#include <cerrno>
#include <string>

#include <fmt/format.h>

#include "broker/base/wall_clock.h"

namespace sockbroker {

namespace {

constexpr const char* kLost =
        "nothing is dispatched: somebody has detached the dispatch program from this network namespace (bpftool link "
        "detach?); systemctl restart sockbrokerd attaches it again";

}  // namespace

void Attachment::look() {
        look_at_name();
        if (dataplane_.is_attached()) {
                lost_since_usec_ = 0;
        } else if (!is_lost()) {
                lost_since_usec_ = wall_usec();
                audit_.note(2, why());
        }
        if (dataplane_.is_pinned()) {
                unpinned_since_usec_ = 0;
        } else if (unpinned_since_usec_ == 0) {
                unpinned_since_usec_ = wall_usec();
                if (!is_lost() && !is_removed()) {
                        audit_.note(2, why());
                }
        }
}

void Attachment::look_at_name() {
        if (netns_.empty() || is_removed()) {
                return;
        }
        struct stat named {};
        const bool there = stat(("/run/netns/" + netns_).c_str(), &named) == 0;
        if (!there && errno != ENOENT) {
                return;
        }
        if (inode_ == 0) {
                inode_ = there && dataplane_.netns() == named.st_ino ? named.st_ino : 0;
        } else if (!there || named.st_ino != inode_) {
                removed_since_usec_ = wall_usec();
                audit_.note(4, why());
        }
}

std::string Attachment::why() const {
        if (!is_removed() && is_lost()) {
                return kLost;
        }
        if (!is_removed()) {
                return fmt::format(
                        "somebody has removed the pins in {}, so dispatch ends with this broker: restart it when the "
                        "services can be restarted after it, for the next one begins without any socket",
                        dataplane_.pin_dir());
        }
        return fmt::format(
                "{}the network namespace {} was removed, so that no routes are made in it and its interfaces are not "
                "watched any more; once there is another one of this name: systemctl restart sockbrokerd@{}.service",
                is_lost() ? "nothing is dispatched: " : "", netns_, netns_);
}

void Attachment::tell(PolicyStatus& status) const {
        const auto since = is_removed() ? removed_since_usec_ : is_lost() ? lost_since_usec_ : unpinned_since_usec_;
        if (since == 0) {
                return;
        }
        const bool was_degraded = !status.degraded.empty();
        status.degrade(was_degraded ? why() + "; " + status.degraded : why());
        if (!was_degraded) {
                status.degraded_since_usec = since;
        }
}

}  // namespace sockbroker
