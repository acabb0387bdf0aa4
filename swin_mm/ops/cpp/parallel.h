// Work that threads share, on the threads of torch's own OpenMP.

#pragma once

#include <atomic>
#include <cstdint>

namespace {

typedef void (*RunParallel)(void (*)(void*), void*, unsigned, unsigned);

// Each thread makes a worker and takes parts until none is left. What is summed belongs to a part,
// not to a thread, so that it comes out the same however many threads there are.
template <typename Worker, typename Problem, typename Body>
void share(const Problem& problem, int64_t parts, Body body) {
  struct Job {
    const Problem& problem;
    const int64_t parts;
    Body& body;
    std::atomic<int64_t> next{0};
  } job{problem, parts, body};
  const auto work = [](void* data) {
    Job& job = *static_cast<Job*>(data);
    Worker worker(job.problem);
    for (int64_t part; (part = job.next++) < job.parts;) job.body(worker, part);
  };
  if (problem.threads > 1 && problem.run_parallel)
    problem.run_parallel(work, &job, static_cast<unsigned>(problem.threads), 0);
  else
    work(&job);
}

}  // namespace
