// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/crew.h"

#include <cerrno>
#include <utility>

#include "broker/hands/crew_state.h"

namespace sockbroker::hands {

Crew::Crew(std::unique_ptr<State> state) : state_(std::move(state)) {}

Crew::~Crew() = default;

Result<std::unique_ptr<Crew>> Crew::start(sd_event* event, Zygote& zygote, const Options& options, Hooks hooks) {
        auto state = std::make_unique<State>(event, zygote, options, std::move(hooks));
        if (auto started = state->start(); !started) {
                return std::unexpected(started.error());
        }
        return std::unique_ptr<Crew>(new Crew(std::move(state)));
}

bool Crew::bars(const Charge& charge) const {
        return state_->roster().bars(charge);
}

std::size_t Crew::left_behind() const {
        return state_->roster().ledger().size();
}

bool Crew::take(Take what, Done done, std::function<void()> taken) {
        const bool barred = bars(what.charge);
        if (barred && !what.others_wait) {
                return false;
        }
        auto job = std::make_unique<Job>();
        job->order.kind = OrderKind::kTake;
        job->order.source = what.connection < 0 ? Source::kNotify : Source::kAttached;
        job->order.probe = what.probe && !barred;
        job->order.keep = barred || !what.holder.empty();
        job->connection = what.connection;
        job->connection_id = what.id;
        job->charge = std::move(what.charge);
        if (!barred) {
                job->holder = std::move(what.holder);
        }
        job->done = std::move(done);
        job->taken = std::move(taken);
        job->barred = barred;
        return state_->push(job);
}

void Crew::close(std::uint64_t id, OwnedFd connection, Charge charge) noexcept {
        state_->close(id, std::move(connection), std::move(charge));
}

void Crew::adopt(const std::string& holder, std::vector<std::uint64_t> cookies, std::vector<OwnedFd> sockets,
                 Charge charge, Done done) {
        auto job = std::make_unique<Job>();
        job->order.kind = OrderKind::kAdopt;
        job->order.probe = true;
        job->order.keep = true;
        job->cookies = std::move(cookies);
        job->given = std::move(sockets);
        job->charge = std::move(charge);
        job->holder = holder;
        job->done = std::move(done);
        (void)state_->push(job);  // waits
}

void Crew::release(const std::string& holder, std::uint64_t cookie, std::string name) noexcept {
        state_->release(holder, cookie, std::move(name));
}

void Crew::sample(const std::string& holder, std::vector<std::uint64_t> cookies, Done done) {
        auto job = std::make_unique<Job>();
        job->order.kind = OrderKind::kSample;
        job->order.probe = true;
        job->cookies = std::move(cookies);
        job->holder = holder;
        job->done = std::move(done);
        (void)state_->push(job);  // waits
}

void Crew::send(const std::string& holder, std::vector<std::uint64_t> cookies, int connection, std::uint64_t id,
                std::string record, std::function<void(int errnum)> done) {
        auto job = std::make_unique<Job>();
        job->order.kind = OrderKind::kSend;
        job->cookies = std::move(cookies);
        job->text = std::move(record);
        job->connection = connection;
        job->connection_id = id;
        job->holder = holder;
        job->done = [done = std::move(done)](const Taken& result) {
                done(result.outcome == Outcome::kDone   ? result.errnum
                     : result.outcome == Outcome::kBusy ? EBUSY
                                                        : ETIMEDOUT);
        };
        (void)state_->push(job);  // waits
}

void Crew::store(const std::string& holder, std::uint64_t cookie, const std::string& name) {
        auto job = std::make_unique<Job>();
        job->order.kind = OrderKind::kStore;
        job->cookies = {cookie};
        job->text = name;
        job->holder = holder;
        (void)state_->push(job);  // waits
}

std::vector<std::uint64_t> Crew::kept(const std::string& holder) const {
        return state_->holders().kept(holder);
}

bool Crew::keeps(const std::string& holder, std::uint64_t cookie) const {
        return state_->holders().keeps(holder, cookie);
}

bool Crew::holders_idle() const {
        return state_->holders().idle();
}

}  // namespace sockbroker::hands
