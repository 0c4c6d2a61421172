// SPDX-License-Identifier: LGPL-2.1-or-later
//
// An Entry as the journal and as standard error take it. Pure. Values come from peers and policies: none of
// them can make a field or a line of its own.
#pragma once

#include <string>
#include <vector>

#include "broker/audit/audit.h"

namespace sockbroker {

// NAME=value, one a field, for sd_journal_sendv(3), which frames values with new lines as binary.
[[nodiscard]] std::vector<std::string> journal_fields(const Entry& entry);

// "refuse: message (service=resolver, rule=/etc/sockbroker/conf.d/50-dns.conf:2, uid=1000)" and a new line.
[[nodiscard]] std::string stderr_line(const Entry& entry);

// Whether a descriptor is the stream that $JOURNAL_STREAM names as "device:inode", see systemd.exec(5).
[[nodiscard]] bool is_journal_stream(int fd, const char* journal_stream);

}  // namespace sockbroker
