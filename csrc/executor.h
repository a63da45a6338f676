// A program planned onto one arena and run there: the native backend. The bits are those of backends/reference.py for
// any instruction set, number of threads, and for any of the options.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "places.h"
#include "plan.h"
#include "program.h"
#include "regions.h"

namespace gv {

struct ExecutorOptions {
    bool keep = false;  // every value has memory of its own, the next state too, and is there afterwards
    RegionsOf regions = RegionsOf::cpu;  // none: every node runs on its own, as with `keep`
    int64_t memory_limit = -1;  // bytes, checked before anything is allocated; -1: nine tenths of the machine's memory
};

class Planner;

// Where every value of a program lies in one arena, and the calls that compute a step there.
class PlannedProgram {
  public:
    PlannedProgram(Program program, const ExecutorOptions& options);  // throws Refusal
    ~PlannedProgram();
    PlannedProgram(const PlannedProgram&) = delete;
    PlannedProgram& operator=(const PlannedProgram&) = delete;

    const Program& program() const { return program_; }
    int64_t arena_bytes() const;
    size_t regions() const;

    // Of any value; where a batch or scalar input is to be put before a step; contiguous then.
    const std::vector<Place>& places() const;
    // The state, before a step and after it, by number of the state input (they are the first inputs); contiguous.
    const std::vector<Place>& states() const;
    // After a step, by number of the metric output among the metrics.
    const std::vector<Place>& metrics() const;
    void write(PlanWriter& plan) const;  // the scalar programs, then the calls of a step

  private:
    const Program program_;
    std::unique_ptr<Planner> planner_;
};

class Executor {
  public:
    Executor(Program program, const ExecutorOptions& options);  // throws Refusal, std::bad_alloc
    Executor(const Executor&) = delete;
    Executor& operator=(const Executor&) = delete;

    const PlannedProgram& planned() const { return planned_; }
    const Program& program() const { return planned_.program(); }
    int64_t arena_bytes() const { return plan_.arena_bytes(); }
    size_t calls() const { return plan_.calls(); }
    size_t regions() const { return planned_.regions(); }

    size_t states() const { return planned_.states().size(); }
    size_t metrics() const { return planned_.metrics().size(); }
    const Place& input(size_t value) const { return planned_.places()[value]; }
    const Place& state(size_t number) const { return planned_.states()[number]; }
    const Place& metric(size_t number) const { return planned_.metrics()[number]; }
    bool keeps() const { return keeps_; }
    const Place& value(size_t number) const { return planned_.places()[number]; }  // of the last run, if it keeps
    uint8_t* at(const Place& place) const { return plan_.at(place.byte_offset()); }

    void run() const { plan_.run(); }

  private:
    const bool keeps_;
    const PlannedProgram planned_;
    Plan plan_;
};

}  // namespace gv
