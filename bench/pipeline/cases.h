// The cases of the pipeline bench. Each warms up, is checked, and adds its figures to the report.
#pragma once

#include "pipeline/report.h"
#include "pipeline/served_model.h"

namespace hadal::bench {

// pp N: a prompt's tokens, tg N and tg NxS: tokens of one sequence and of S together, per second.
void run_throughput(ServedModel& model, Report& report);
// The host's time in a decode step of one sequence while it does not wait for the device.
void run_host_share(ServedModel& model, Report& report);
// One sequence that continues texts: plainly, with drafts where they pay, with drafts always.
void run_speculation(ServedModel& model, Report& report);
// Time to the first token of a long prompt, nothing and 90 % of it known.
void run_prefix_reuse(ServedModel& model, Report& report);
// Device time by kernel, of a prompt and of decode steps.
void run_kernels(ServedModel& model, Report& report);
// Requests that arrive while others generate, as a trace of both pipelines.
void write_trace(ServedModel& model, const std::string& file);

}  // namespace hadal::bench
