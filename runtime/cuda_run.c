/* Runs: five calls of the driver each, whatever the step. Results are read from the slot's pinned memory once its event says that
 * they are there. */
#include "runtime/cuda_private.h"

#include <string.h>

static CudaStep *step_of(CudaExecutor *executor, const ProgramStep *step) {
  return &executor->steps[executor_step_index(&executor->base, step)];
}

/* Without a feed there is no plan to send. */
static bool send_mail(CudaExecutor *executor, const CudaStep *step, CudaSlot *slot, Err *err) {
  size_t bytes = (size_t)(step->images >= 0 ? step->mail_bytes : step->plan_at);
  if (!bytes) return true;
  memcpy(slot->mail, step->mail, bytes);
  return cuda_check(&executor->driver, executor->driver.copy_in(executor->mailbox, slot->mail, bytes, executor->stream), err,
                    "cannot send a step's inputs to the GPU");
}

bool cuda_run(Executor *base, const ProgramStep *step, int64_t batch, int64_t run, Err *err) {
  CudaExecutor *executor = (CudaExecutor *)base;
  const CudaDriver *driver = &executor->driver;
  (void)run;
  if (!cuda_enter(executor, err)) return false;
  CudaStep *own = step_of(executor, step);
  CudaSlot *slot = cuda_next_slot(executor, err);
  const CudaGraphOf *graph = slot ? cuda_graph(executor, own, batch, err) : NULL;
  if (!graph || !cuda_flush(executor, err) || !send_mail(executor, own, slot, err) ||
      !cuda_check(driver, driver->graph_launch(graph->run, executor->stream), err, "cannot run the step %s", step->name))
    return false;
  size_t bytes = (size_t)own->result_bytes;
  if (bytes && !cuda_check(driver, driver->copy_out(slot->results, executor->outbox, bytes, executor->stream), err,
                           "cannot read the results of the step %s", step->name))
    return false;
  slot->step = step;
  slot->busy = true;
  return cuda_check(driver, driver->event_record(slot->done, executor->stream), err, "cannot record an event");
}

const float *cuda_result(Executor *base, const ProgramStep *step, int64_t run, uint32_t result, Err *err) {
  CudaExecutor *executor = (CudaExecutor *)base;
  const CudaSlot *slot = &executor->slots[run % base->depth];
  if (slot->step != step) die("run %lld was of step %s, and not of %s", (long long)run, slot->step->name, step->name);
  if (!cuda_enter(executor, err) || !cuda_check(&executor->driver, executor->driver.event_wait(slot->done), err,
                                                "the GPU has stopped in the step %s", step->name))
    return NULL;
  const void *at = slot->results + step_of(executor, step)->result_at[result];
  return at;
}

bool cuda_finish(Executor *base, Err *err) {
  CudaExecutor *executor = (CudaExecutor *)base;
  return cuda_enter(executor, err) && cuda_flush(executor, err) && cuda_wait(executor, err);
}

int64_t cuda_launches(Executor *base, const ProgramStep *step, int64_t batch, Err *err) {
  CudaExecutor *executor = (CudaExecutor *)base;
  if (!cuda_enter(executor, err)) return -1;
  const CudaGraphOf *graph = cuda_graph(executor, step_of(executor, step), batch, err);
  return graph ? graph->launches : -1;
}

/* ---- profile ---- */

/* The launch alone; of a group its blocks are run by the group's kernel. */
static bool put_apart(CudaExecutor *executor, const ProgramStep *step, const CudaTables *tables, const Segment *segment,
                      const Launch *launch, int64_t number, int64_t batch, Err *err) {
  if (segment->group && !launch->product) return cuda_put_group(executor, tables, segment->group - 1, number, err);
  return cuda_put_launch(executor, step, launch, batch, err);
}

static bool time_launch(CudaExecutor *executor, const ProgramStep *step, const CudaTables *tables, const Segment *segment,
                        const Launch *launch, int64_t number, int64_t batch, double *seconds, Err *err) {
  const CudaDriver *driver = &executor->driver;
  float milliseconds = 0;
  bool done = cuda_check(driver, driver->event_record(executor->clock[0], executor->stream), err, "cannot record an event") &&
              put_apart(executor, step, tables, segment, launch, number, batch, err) &&
              cuda_check(driver, driver->event_record(executor->clock[1], executor->stream), err, "cannot record an event") &&
              cuda_check(driver, driver->event_wait(executor->clock[1]), err, "the GPU has stopped in the step %s", step->name) &&
              cuda_check(driver, driver->event_milliseconds(&milliseconds, executor->clock[0], executor->clock[1]), err,
                         "cannot read the GPU's clock");
  *seconds += (double)milliseconds / 1e3;
  return done;
}

bool cuda_profile(Executor *base, const ProgramStep *step, int64_t batch, double *seconds, Err *err) {
  CudaExecutor *executor = (CudaExecutor *)base;
  const CudaDriver *driver = &executor->driver;
  CudaStep *own = step_of(executor, step);
  int64_t nodes = 0;
  if (!cuda_finish(base, err)) return false;
  for (int i = 0; i < 2; i++)
    if (!executor->clock[i] && !cuda_check(driver, driver->event_create(&executor->clock[i], 0), err, "cannot make an event"))
      return false;
  CudaSlot *slot = cuda_next_slot(executor, err);
  const CudaTables *tables = slot ? cuda_tables(executor, own, batch, true, err) : NULL;
  if (!tables || !send_mail(executor, own, slot, err) || !cuda_put_inputs(executor, own, batch, &nodes, err)) return false;
  int64_t number = 0;
  for (uint32_t s = 0; s < step->segment_count; s++)
    for (uint32_t l = 0; l < step->segments[s].count; l++, number++)
      if (!time_launch(executor, step, tables, &step->segments[s], &step->segments[s].launches[l], number, batch, seconds++, err))
        return false;
  return true;
}
