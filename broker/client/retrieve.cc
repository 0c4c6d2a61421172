// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/client/retrieve.h"

#include "broker/protocol/request.h"

namespace sockbroker {

Result<ControlClient::Answer> retrieve_all(ControlClient& client, const std::string& service,
                                           std::vector<OwnedFd>& fds) {
        const std::string request = format_request({Verb::kRetrieve, service});
        while (true) {
                const std::size_t before = fds.size();
                auto answer = client.call(request, {}, {}, &fds);
                const bool last = before > 0 && answer && answer->result == "not-held";
                if (last) {
                        answer->result = "ok";
                        answer->errnum = 0;
                }
                if (!answer || answer->result != "ok" || fds.size() - before < kMaxMessageFds) {
                        return answer;
                }
        }
}

}  // namespace sockbroker
