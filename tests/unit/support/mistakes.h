// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Reads tests/data/protocol_mistakes.json: what a peer may do wrong and the exact answer. An entry has
//   name, channel  "notify", "control" or "both"
//   text           the message; with pad_to, followed by "PAD=xxx..." up to that many bytes
//   fds            a number of good listeners, or a list of kinds (support/socket_kinds.h)
//   result         a RESULT= code: "malformed" ones are found in the text and the number of descriptors alone
//   message        the exact MESSAGE=
// The service "web" is assumed to exist, to admit the sender and to have TCP and UDP bindings in both families.
#pragma once

#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "broker/protocol/request.h"

namespace sockbroker::test {

struct Mistake {
        std::string name;
        std::vector<Channel> channels;
        std::string text;
        std::vector<std::string> fds;  // kinds
        std::string result;
        std::string message;
};

inline std::vector<Mistake> read_mistakes() {
        std::ifstream file(SOCKBROKER_SOURCE_ROOT "/tests/data/protocol_mistakes.json");
        std::vector<Mistake> mistakes;
        for (const auto& entry : nlohmann::json::parse(file)) {
                Mistake mistake{entry.at("name"), {}, entry.at("text"), {}, entry.at("result"), entry.at("message")};
                const std::string channel = entry.at("channel");
                if (channel != "control") {
                        mistake.channels.push_back(Channel::kNotify);
                }
                if (channel != "notify") {
                        mistake.channels.push_back(Channel::kControl);
                }
                if (const std::size_t size = entry.value("pad_to", 0U); size != 0) {
                        mistake.text += "PAD=";
                        mistake.text.resize(size, 'x');
                }
                if (entry.at("fds").is_number()) {
                        mistake.fds.assign(entry.at("fds"), "tcp-listener");
                } else {
                        mistake.fds = entry.at("fds");
                }
                mistakes.push_back(std::move(mistake));
        }
        return mistakes;
}

}  // namespace sockbroker::test
