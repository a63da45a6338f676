// A program planned onto one arena and run there: the native backend. The bits are those of backends/reference.py for
// any instruction set, number of threads, and for any of the options.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "places.h"
#include "plan.h"
#include "program.h"

namespace gv {

struct ExecutorOptions {
    bool keep = false;          // every value has memory of its own, the next state too, and can be read after a step
    bool fuse = true;           // regions; off, every node runs on its own. `keep` turns it off
    int64_t memory_limit = -1;  // bytes, checked before anything is allocated; -1: nine tenths of the machine's memory
};

class Planner;

class Executor {
  public:
    Executor(Program program, const ExecutorOptions& options);  // throws Refusal, std::bad_alloc
    ~Executor();
    Executor(const Executor&) = delete;
    Executor& operator=(const Executor&) = delete;

    const Program& program() const { return program_; }
    int64_t arena_bytes() const { return plan_->arena_bytes(); }
    size_t calls() const { return plan_->calls(); }
    size_t regions() const { return n_regions_; }

    size_t states() const { return states_.size(); }
    size_t metrics() const { return metrics_.size(); }
    // Where a batch or scalar input is to be put before `run`; contiguous.
    const Place& input(size_t value) const { return places_[value]; }
    // The state, before `run` and after it, by number of the state input (they are the first inputs); contiguous.
    const Place& state(size_t number) const { return states_[number]; }
    // Metrics after `run`, by number of the metric output among the metrics.
    const Place& metric(size_t number) const { return metrics_[number]; }
    bool keeps() const { return keeps_; }
    const Place& value(size_t number) const { return places_[number]; }  // of the last run, if it keeps
    uint8_t* at(const Place& place) const { return plan_->at(place.byte_offset()); }

    void run() const { plan_->run(); }

  private:
    const bool keeps_;
    const Program program_;
    std::unique_ptr<Planner> planner_;  // owns the roots of the places
    std::unique_ptr<Plan> plan_;
    std::vector<Place> places_, states_, metrics_;
    size_t n_regions_ = 0;
};

}  // namespace gv
